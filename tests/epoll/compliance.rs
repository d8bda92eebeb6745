// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The contract over streams that a loop has accepted, and bytes through a proxy on a loop.

use std::io;

use vsock_backend_api::VsockStream;
use vsock_compliance::poll::{Deadline, PollInterest, wait_ready};
use vsock_compliance::transfer::{Transfer, TransferPlan, WaitStyle};
use vsock_compliance::{
    BoxedStream, CapacityPromise, ConnectionEnd, Mode, PairSource, judge_streams,
};
use vsock_epoll::services::Proxy;
use vsock_epoll::{AcceptLimits, BackendSubscriber, More, StreamLimits, StreamSubscriber, Trigger};
use vsock_inner::VsockInnerBackend;
use vsock_tests::inner::{Inner, Way};

use std::os::fd::AsRawFd;
use std::time::Duration;

use crate::{DEADLINE, soon};

/// Pairs whose device end has passed through a subscriber.
struct Accepted;

impl PairSource for Accepted {
    fn pair(&self) -> io::Result<(BoxedStream, BoxedStream)> {
        let backend = VsockInnerBackend::new()?;
        let connector = backend.get_connector();
        let mut device = None;
        let take = |stream: Box<dyn VsockStream>| {
            device = Some(stream);
            More::Accept
        };
        let limits = AcceptLimits::default();
        let subscriber = BackendSubscriber::new(Box::new(backend), take, limits);
        let mut subscriber = subscriber.map_err(io::Error::other)?;
        let host = connector.connect()?;
        wait_ready(subscriber.as_raw_fd(), PollInterest::Read, soon())?;
        subscriber.dispatch().map_err(io::Error::other)?;
        drop(subscriber);
        Ok((host, device.ok_or(io::ErrorKind::NotConnected)?))
    }
    fn capacity(&self, writer: ConnectionEnd) -> CapacityPromise {
        Inner::by(Way::Pair).capacity(writer)
    }
    fn initial_mode(&self, end: ConnectionEnd) -> Mode {
        Inner::by(Way::BackendAccepts).initial_mode(end)
    }
}

#[test]
fn accepted_streams_of_a_loop_comply() {
    let report = judge_streams(&Accepted, &[]);
    assert!(report.is_good(), "\n{report}");
}

/// Sends the bytes of a pattern through two transports and the loop between them. Each side waits
/// in its own way.
fn pump(limits: StreamLimits, writer: WaitStyle, reader: WaitStyle) {
    let mut proxy = StreamSubscriber::new(Proxy::new(), limits).unwrap();
    let source = Inner::holding(5000);
    let (mut near, left) = source.pair().unwrap();
    let (mut far, right) = source.pair().unwrap();
    // A blocking side has its own deadline for each call.
    near.set_write_timeout(Some(DEADLINE)).unwrap();
    far.set_read_timeout(Some(DEADLINE)).unwrap();
    Proxy::join(proxy.streams(), left, right).unwrap();
    let plan = |style, seed| TransferPlan {
        bytes: 2_000_000,
        longest: 9000,
        style,
        stall_timeout: DEADLINE,
        seed,
    };
    let transfer = Transfer::start((near, far), plan(writer, 1), plan(reader, 2)).unwrap();
    while !transfer.has_returned() {
        let tick = Deadline::after(Duration::from_millis(10));
        if wait_ready(proxy.as_raw_fd(), PollInterest::Read, tick).is_ok() {
            proxy.dispatch().unwrap();
        }
    }
    transfer.finish().unwrap();
}

#[test]
fn bytes_through_a_proxy_arrive_in_order_in_every_mix_of_modes_and_triggers() {
    for trigger in [Trigger::Level, Trigger::Edge] {
        let limits = StreamLimits::default()
            .trigger(trigger)
            .backlog(3000)
            .turn(2000);
        for drive in WaitStyle::ALL {
            pump(limits, drive, drive);
        }
    }
}
