// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Packets of both socket types with the same ports. A tuple has one connection, whatever its type,
//! and each type has its own requests and RSTs.

use std::time::Duration;

use SocketType::{SeqPacket, Stream};
use vsock_muxer_harness::guest::GuestConfig;
use vsock_muxer_harness::host::{HostBackend, HostEnd, RequestForm, StreamKind};
use vsock_muxer_harness::sim::{Checker, Sim, SimConfig, SimFailure, TracedPacket};
use vsock_proto::{Cid, Config, GuestCid, Header, Op, SocketType, SocketTypes};

/// The only port for host-initiated connections, so that guest and host can request the same tuple.
const HOST_PORT: u32 = 1 << 30;
const GUEST_PORT: u32 = 5000;
const GUEST: u64 = 3;

/// An event at the only tuple.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// The device takes a packet of the guest.
    Takes(SocketType, Op),
    /// The device takes a packet from another port, which it answers with an RST.
    TakesOrphan,
    /// A component connects to the guest's port.
    HostConnects(SocketType),
    /// From now on, a component accepts connections of the guest.
    HostListens,
    /// The driver provides one buffer, and the device fills it.
    Buffer,
}

/// A device whose guest provides a buffer only when told to.
struct Ports {
    sim: Sim,
    backend: HostBackend,
    ends: Vec<HostEnd>,
}

impl Ports {
    fn new(max_resets: usize) -> Self {
        let muxer = Config::builder()
            .host_ports(HOST_PORT..HOST_PORT + 1)
            .max_resets(max_resets)
            .build()
            .unwrap();
        let config = SimConfig {
            muxer,
            ..SimConfig::default()
        };
        let guest = GuestConfig {
            rx_buffers: 0,
            ..GuestConfig::default()
        };
        let mut sim = Sim::new(config, guest).unwrap();
        sim.record();
        sim.guest.starve();
        let backend = sim.add_backend(StreamKind::Channel, 64).unwrap();
        Self {
            sim,
            backend,
            ends: Vec::new(),
        }
    }

    fn on(&mut self, event: Event) -> Result<(), SimFailure> {
        match event {
            Event::Takes(socket_type, op) => self.send(GUEST_PORT, socket_type, op),
            Event::TakesOrphan => self.send(GUEST_PORT + 1, Stream, Op::CreditUpdate),
            Event::HostConnects(socket_type) => {
                let form = RequestForm::OutOfBand;
                let end = self.backend.connect_as(socket_type, form, GUEST_PORT);
                self.ends.extend(end);
            }
            Event::HostListens => self.backend.listen(HOST_PORT, 64),
            Event::Buffer => self.sim.guest.rx_queue().post(Header::LEN),
        }
        self.sim.settle()
    }

    fn send(&mut self, src_port: u32, socket_type: SocketType, op: Op) {
        let header = Header {
            src_port,
            ..from_guest(socket_type, op)
        };
        self.sim.guest.send_raw(header, Vec::new());
    }
}

/// Plays the events, provides buffers for everything, lets every deadline pass, and checks that
/// nothing is left. Returns the packets before the deadlines.
fn run(max_resets: usize, events: &[Event]) -> Result<Vec<TracedPacket>, SimFailure> {
    let mut ports = Ports::new(max_resets);
    for event in events.iter().chain(&[Event::Buffer; 16]) {
        ports.on(*event)?;
    }
    let packets = ports.sim.trace().to_vec();
    ports.ends.clear();
    while ports.backend.accept(HOST_PORT).is_some() {}
    for _ in 0..16 {
        ports.on(Event::Buffer)?;
    }
    ports.sim.pass(Duration::from_secs(60))?;
    let connections = ports.sim.device().connections().count();
    assert_eq!(connections, 0, "{events:?}");
    assert_eq!(ports.sim.checker().connections(), 0, "{events:?}");
    Ok(packets)
}

/// Returns what the device has sent to the tuple.
fn answers(max_resets: usize, events: &[Event]) -> Vec<(SocketType, Op)> {
    let sent = run(max_resets, events).unwrap();
    sent.iter()
        .filter_map(|packet| match packet {
            TracedPacket::ToGuest(header) if header.dst_port == GUEST_PORT => Some((
                SocketType::try_from(header.socket_type).unwrap(),
                Op::try_from(header.op).unwrap(),
            )),
            _ => None,
        })
        .collect()
}

fn from_guest(socket_type: SocketType, op: Op) -> Header {
    Header {
        src_cid: GUEST,
        dst_cid: Cid::HOST.into(),
        src_port: GUEST_PORT,
        dst_port: HOST_PORT,
        socket_type: socket_type.into(),
        op: op.into(),
        buf_alloc: 1000,
        ..Header::default()
    }
}

fn to_guest(socket_type: SocketType, op: Op) -> Header {
    Header {
        src_cid: Cid::HOST.into(),
        dst_cid: GUEST,
        src_port: HOST_PORT,
        dst_port: GUEST_PORT,
        ..from_guest(socket_type, op)
    }
}

#[test]
fn t111_each_type_gets_its_own_answer() {
    let events = [
        Event::HostListens,
        Event::Takes(SeqPacket, Op::Request),
        Event::Takes(Stream, Op::Request),
        Event::Takes(SeqPacket, Op::Reset),
        Event::Takes(SeqPacket, Op::Request),
        Event::Takes(Stream, Op::Request),
    ];
    let expected = [(Stream, Op::Reset), (SeqPacket, Op::Response)];
    assert_eq!(answers(8, &events), expected);
}

#[test]
fn t111_an_rst_may_follow_the_response_to_the_other_type() {
    let events = [
        // Its RST comes first, and then it is a connection's turn.
        Event::TakesOrphan,
        Event::Takes(Stream, Op::Request),
        Event::HostListens,
        Event::Takes(SeqPacket, Op::Request),
    ];
    let expected = [(SeqPacket, Op::Response), (Stream, Op::Reset)];
    assert_eq!(answers(8, &events), expected);
}

#[test]
fn t111_a_request_of_the_host_stays_while_the_other_type_is_refused() {
    let events = [
        Event::TakesOrphan,
        Event::HostConnects(Stream),
        Event::Takes(SeqPacket, Op::Request),
    ];
    let expected = [(Stream, Op::Request), (SeqPacket, Op::Reset)];
    assert_eq!(answers(8, &events)[..2], expected);
}

#[test]
fn t111_at_the_limit_of_rsts_the_next_request_waits() {
    let events = [
        Event::Takes(Stream, Op::Request),
        Event::HostListens,
        Event::Takes(SeqPacket, Op::Request),
        Event::Takes(Stream, Op::Request),
    ];
    // The second REQUEST is taken when the RST that answers the first one has its buffer.
    let expected = [
        (Stream, Op::Reset),
        (SeqPacket, Op::Response),
        (Stream, Op::Reset),
    ];
    assert_eq!(answers(1, &events), expected);
    assert_eq!(answers(8, &events), expected[..2]);
}

/// Runs every sequence of this many events.
fn run_all(length: u32, max_resets: usize) {
    const EVENTS: [Event; 8] = [
        Event::Takes(Stream, Op::Request),
        Event::Takes(SeqPacket, Op::Request),
        Event::Takes(Stream, Op::Reset),
        Event::Takes(SeqPacket, Op::Reset),
        Event::Takes(SeqPacket, Op::ReadWrite),
        Event::TakesOrphan,
        Event::HostConnects(Stream),
        Event::Buffer,
    ];
    for listens_at in 0..=length {
        for number in 0..EVENTS.len().pow(length) {
            let mut rest = number;
            let mut events = Vec::new();
            for at in 0..length {
                if at == listens_at {
                    events.push(Event::HostListens);
                }
                events.push(EVENTS[rest % EVENTS.len()]);
                rest /= EVENTS.len();
            }
            if let Err(why) = run(max_resets, &events) {
                panic!("{events:?}: {why}");
            }
        }
    }
}

#[test]
fn t111_every_short_mix_of_types_is_answered() {
    run_all(4, 8);
    run_all(3, 1);
}

/// Returns a checker that has seen a stream's and then a seqpacket's request for one tuple.
fn two_requests() -> Checker {
    let mut checker = Checker::new(GuestCid::try_from(GUEST).unwrap(), SocketTypes::ALL);
    checker.on_taken(&from_guest(Stream, Op::Request));
    checker.on_taken(&from_guest(SeqPacket, Op::Request));
    checker
}

#[test]
fn a_tuple_has_no_second_connection_of_another_type() {
    let mut checker = two_requests();
    checker.on_put(&to_guest(SeqPacket, Op::Response)).unwrap();
    checker.on_put(&to_guest(Stream, Op::Response)).unwrap_err();
    checker.on_taken(&from_guest(Stream, Op::Request));
    checker.on_put(&to_guest(Stream, Op::Response)).unwrap_err();
    checker
        .on_put(&to_guest(Stream, Op::ReadWrite))
        .unwrap_err();
}

#[test]
fn a_request_of_another_type_must_be_refused() {
    let mut checker = two_requests();
    checker.on_put(&to_guest(Stream, Op::Response)).unwrap();
    assert_eq!(checker.owed_resets(), 1);
    checker.on_put(&to_guest(SeqPacket, Op::Reset)).unwrap();
    assert_eq!(checker.owed_resets(), 0);
    checker.on_put(&to_guest(SeqPacket, Op::Reset)).unwrap_err();
    // The connection is as it was, and another request is refused like the first one.
    checker.on_put(&to_guest(Stream, Op::CreditUpdate)).unwrap();
    checker.on_taken(&from_guest(SeqPacket, Op::Request));
    assert_eq!(checker.owed_resets(), 1);
}

#[test]
fn a_request_takes_back_no_rst_of_the_other_type() {
    let mut checker = Checker::new(GuestCid::try_from(GUEST).unwrap(), SocketTypes::ALL);
    checker.on_taken(&from_guest(Stream, Op::CreditUpdate));
    checker.on_taken(&from_guest(SeqPacket, Op::Request));
    assert_eq!(checker.owed_resets(), 1);
    checker.on_taken(&from_guest(Stream, Op::Request));
    assert_eq!(
        checker.owed_resets(),
        0,
        "it would reset the new connection"
    );
}
