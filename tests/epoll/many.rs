// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Ten thousand streams, and what remains of them.

use std::io::Write;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use vsock_backend_api::VsockStream;
use vsock_compliance::fd::open_count;
use vsock_epoll::services::Echo;
use vsock_epoll::{StreamLimits, StreamSubscriber};
use vsock_inner::VsockInnerStream;
pub(crate) use vsock_tests::alone::alone;

use crate::{add, read_all, rest};

const STREAMS: u64 = 10_000;
const BUSY: usize = 100;
/// Two descriptors for each pair, and some for the rest.
const NEEDED: u64 = 2 * STREAMS + 100;

/// Raises the descriptor limit, the hard limit as well if that is allowed. Returns how many streams
/// it allows.
fn make_room() -> u64 {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    if soft >= NEEDED || setrlimit(Resource::RLIMIT_NOFILE, NEEDED, hard.max(NEEDED)).is_ok() {
        return STREAMS;
    }
    setrlimit(Resource::RLIMIT_NOFILE, NEEDED.min(hard), hard).unwrap();
    if hard < NEEDED {
        eprintln!("the hard descriptor limit is {hard}, too low for {STREAMS} streams");
    }
    STREAMS.min((hard - 100) / 2)
}

#[test]
fn ten_thousand_streams_with_a_hundred_busy_ones() {
    alone(|| {
        let before = open_count().unwrap();
        let count = make_room();
        let mut echo = StreamSubscriber::new(Echo::new(), StreamLimits::default()).unwrap();
        let mut hosts = Vec::new();
        for _ in 0..count {
            let (mut host, device) = VsockInnerStream::pair().unwrap();
            host.set_nonblocking(true).unwrap();
            echo.streams().add(Box::new(device), ()).unwrap();
            hosts.push(host);
        }
        rest(&mut echo);
        assert_eq!(echo.counters().events, 0);
        let step = hosts.len() / BUSY;
        for round in 0..50_u8 {
            for host in hosts.iter_mut().step_by(step).take(BUSY) {
                host.write_all(&[round; 100]).unwrap();
            }
            rest(&mut echo);
            for host in hosts.iter_mut().step_by(step).take(BUSY) {
                assert_eq!(read_all(host), (vec![round; 100], false));
            }
        }
        let counters = echo.counters();
        assert_eq!(counters.events, 50 * BUSY as u64, "one for each message");
        assert_eq!((counters.spurious, counters.stale), (0, 0));
        drop(hosts);
        rest(&mut echo);
        assert!(echo.streams().is_empty());
        assert_eq!(echo.counters().closes, count);
        drop(echo);
        assert_eq!(open_count().unwrap(), before);
    });
}

#[test]
fn only_the_stream_that_cannot_wait_for_space_fails() {
    alone(|| {
        let mut subscriber = crate::reader(StreamLimits::default());
        let (host, id) = add(&mut subscriber, &vsock_tests::inner::Inner::holding(10));
        let (mut other, _) = add(&mut subscriber, &vsock_tests::inner::Inner::holding(10));
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, 3, hard).unwrap(); // no more descriptors
        assert_eq!(subscriber.streams().write(id, &[1; 20]), 20);
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
        other.write_all(b"x").unwrap();
        rest(&mut subscriber);
        assert_eq!(subscriber.handler().count(crate::Told::Failed("other")), 1);
        assert_eq!(subscriber.handler().got, b"x");
        assert_eq!(subscriber.streams().len(), 1);
        assert!(host.peer_gone());
    });
}
