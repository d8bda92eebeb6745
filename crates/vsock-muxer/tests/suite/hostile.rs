// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Hostile guests and host clients.

use std::time::Duration;

use proptest::prelude::{Strategy, any, prop_oneof};
use proptest::{collection, prop_assert, prop_assert_eq, proptest};
use vsock_proto::{Header, Op};

use crate::stream::After;
use crate::world::{GUEST, READABLE, World, header, op, ready, with};

#[test]
fn t74_pending_replies_are_bounded_by_taking_no_more_packets() {
    let mut world = World::limited(|limits| limits.max_resets(8));
    let mut taken = 0;
    while world.muxer.can_take_packet() {
        world.guest_sends(&header(Op::ReadWrite, taken, 1), b"");
        taken += 1;
    }
    assert_eq!(taken, 8);
    assert_eq!(world.receive(1).len(), 1);
    assert!(world.muxer.can_take_packet());
    world.guest_sends(&header(Op::ReadWrite, 99, 1), b"");
    assert_eq!(world.ops(), [Op::Reset; 8]);
}

#[test]
fn t6_t7_a_packet_with_a_foreign_address_affects_no_connection() {
    let (mut world, host, request) = World::connected();
    let reset = op(Op::Reset, &request);
    for foreign in [
        with(reset, |h| h.src_cid = 4),
        with(reset, |h| h.dst_cid = 5),
        with(reset, |h| h.dst_cid = 0x1_0000_0002),
    ] {
        world.guest_sends(&foreign, b"");
    }
    assert!(!host.state().closed);
    assert_eq!(world.ops(), []);
    assert_eq!(world.muxer.counters().packets_rejected, 3);
}

#[test]
fn t8_t9_unknown_types_and_operations_stop_no_connection() {
    let (mut world, host, request) = World::connected();
    for unknown in [0, 8, 255, u16::MAX] {
        world.guest_sends(&with(request, |h| h.op = unknown), b"");
        assert_eq!(world.ops(), []);
        world.guest_sends(&with(request, |h| h.socket_type = unknown), b"");
        let answer = world.receive(9);
        assert_eq!(answer.len(), 1);
        assert_eq!((answer[0].0.op, answer[0].0.socket_type), (3, unknown));
    }
    world.guest_sends(&op(Op::ReadWrite, &request), b"works");
    assert_eq!(host.got(), b"works");
}

#[test]
fn replaced_connections_that_drain_count_against_the_limit() {
    let mut world = World::limited(|limits| limits.max_connections(4));
    for _ in 0..10 {
        let host = world.host();
        host.state().space = 0;
        world.answer(Ok(&host));
        let request = header(Op::Request, 1, 52);
        world.guest_sends(&request, b"");
        world.receive(9);
        if world.muxer.can_take_packet() {
            world.guest_sends(&op(Op::ReadWrite, &request), b"stuck");
            world.guest_sends(&crate::world::shutdown(&request, 2), b"");
        }
    }
    assert!(world.muxer.connections().count() <= 4);
    assert!(world.muxer.counters().refused_at_limit > 0);
    world.pass(Duration::from_secs(60));
    world.receive(64);
    world.pass(Duration::from_secs(60));
    world.receive(64);
    assert!(world.muxer.connections().count() <= 1);
}

#[test]
fn payload_of_a_connection_that_has_ended_is_not_counted() {
    let (mut world, host, request) = World::connected();
    let data = op(Op::ReadWrite, &request);
    world.guest_sends(&data, b"taken");
    // Impossible credit ends the connection. Without a buffer, its RST waits, and the guest can
    // send anything until it has provided one.
    world.guest_sends(&with(data, |h| h.fwd_cnt = 99), b"broken");
    for _ in 0..3 {
        world.guest_sends(&data, b"ignored");
    }
    assert_eq!(host.got(), b"taken");
    assert_eq!(world.muxer.counters().bytes_from_guest, 5);
    let connection = world.muxer.connections().next().unwrap();
    assert_eq!(connection.bytes_from_guest, 5);
    assert_eq!(world.ops(), [Op::Reset]);
}

#[derive(Clone, Debug)]
enum Deed {
    Packet(Header, usize),
    Buffers(Vec<usize>, usize),
    Client(Vec<u8>),
    Event(u32, u8),
    Space(u32, usize),
    /// The peer of a stream leaves.
    Leave(u32),
    Farewell,
    Pass(u64),
    Reset,
    TransportReset,
}

fn any_header() -> impl Strategy<Value = Header> {
    let credit = prop_oneof![0..4_u32, 0..100_000_u32, any::<u32>()];
    let fields = (0..9_u16, 1..4_u32, 50..53_u32, 0..5_u32, credit, 0..40_u32);
    (fields, 0..60_u8).prop_map(
        |((op, guest, host, flags, buf_alloc, fwd_cnt), rare)| Header {
            src_cid: if rare == 0 { 4 } else { GUEST },
            dst_cid: if rare == 1 { 5 } else { 2 },
            src_port: guest,
            dst_port: if rare < 20 { (1 << 30) + host } else { host },
            len: 0,
            socket_type: if rare == 2 { 2 } else { 1 },
            op,
            flags,
            buf_alloc,
            fwd_cnt: if rare == 3 { buf_alloc } else { fwd_cnt },
        },
    )
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        8 => (any_header(), 0..300_usize).prop_map(|(h, len)| Deed::Packet(h, len)),
        3 => (collection::vec(prop_oneof![0..3_usize, 1..5000_usize], 0..6), 0..10_000_usize)
            .prop_map(|(rooms, budget)| Deed::Buffers(rooms, budget)),
        2 => prop_oneof![
            collection::vec(any::<u8>(), 0..40),
            (1..4_u32).prop_map(|port| format!("CONNECT {port}\nearly bytes").into_bytes()),
        ]
        .prop_map(Deed::Client),
        4 => (0..30_u32, 0..8_u8).prop_map(|(who, bits)| Deed::Event(who, bits)),
        1 => (0..30_u32, 0..50_usize).prop_map(|(who, space)| Deed::Space(who, space)),
        1 => (0..4_000_u64).prop_map(Deed::Pass),
        1 => (0..30_u32).prop_map(Deed::Leave),
        1 => prop_oneof![9 => 0..1_u8, 1 => 1..4_u8].prop_map(|which| match which {
            0 => Deed::Pass(0),
            1 => Deed::Reset,
            2 => Deed::Farewell,
            _ => Deed::TransportReset,
        }),
    ]
}

proptest! {
    /// No behaviour of the guest, clients, event loop or clock causes a panic or exceeds a limit.
    /// The actions for the event loop are consistent, which the world checks, and nothing is left
    /// at the end.
    #[test]
    fn no_guest_behaviour_breaks_the_muxer(deeds in collection::vec(deed(), 0..120)) {
        let mut world = World::limited(|limits| {
            limits.buf_alloc(1000).max_connections(6).max_handshakes(3).max_resets(4)
        });
        let mut hosts = Vec::new();
        for deed in deeds {
            match deed {
                Deed::Packet(header, len) if world.muxer.can_take_packet() => {
                    let host = world.host();
                    host.state().space = 40;
                    if header.flags != 4 {
                        world.answer(Ok(&host));
                    }
                    hosts.push(host);
                    let header = Header { len: len as u32, ..header };
                    let data = vec![0; len];
                    world.muxer.on_packet(world.now, &header, &mut &data[..]);
                    world.apply();
                    world.script().answers.clear();
                }
                Deed::Packet(..) => {}
                Deed::Buffers(rooms, budget) => {
                    world.guest.rooms.extend(rooms);
                    world.transmit(budget);
                }
                // During a shutdown, no client is accepted.
                Deed::Client(_) if !world.accepts() => {}
                Deed::Client(bytes) => hosts.push(world.client(&bytes)),
                Deed::Event(who, bits) => {
                    let ready = ready(bits & 1 != 0, bits & 2 != 0, bits == 7);
                    let nth = who as usize % world.watched.len().max(1);
                    let mut fds: Vec<_> = world.watched.keys().copied().collect();
                    fds.sort_unstable();
                    if let Some(fd) = fds.get(nth) {
                        world.event(*fd, ready);
                    }
                }
                Deed::Space(who, space) => {
                    if let Some(host) = hosts.get(who as usize) {
                        let mut state = host.state();
                        state.space = space;
                        state.input.extend([7; 99]);
                    }
                }
                Deed::Leave(who) => {
                    if let Some(host) = hosts.get(who as usize) {
                        let mut state = host.state();
                        (state.after, state.peer_gone) = (After::End, true);
                    }
                }
                Deed::Farewell => {
                    world.muxer.begin_shutdown(world.now);
                    world.apply();
                    prop_assert!(world.watched.is_empty());
                }
                Deed::Pass(millis) => world.pass(Duration::from_millis(millis)),
                Deed::Reset => {
                    world.muxer.reset(world.now);
                    world.activate(vsock_proto::SocketTypes::ALL);
                }
                Deed::TransportReset => {
                    world.muxer.transport_reset(world.now);
                    world.apply();
                }
            }
            prop_assert!(world.muxer.connections().count() <= 6);
            prop_assert!(world.muxer.handshakes() <= 3);
            prop_assert!(world.muxer.connections().all(|c| c.waiting <= 1000 + 32));
        }
        world.muxer.reset(world.now);
        world.apply();
        prop_assert!(world.watched.is_empty());
        prop_assert_eq!(world.muxer.deadline(), None);
        prop_assert!(!world.muxer.wants_transmit());
        let leaked = hosts.iter().filter(|host| host.state().made && !host.state().closed);
        prop_assert_eq!(leaked.count(), 0);
        prop_assert_eq!(world.muxer.connections().count(), 0);
    }
}

#[test]
fn a_client_that_floods_waits_for_the_guest_in_its_own_memory() {
    let mut world = World::new();
    let host = world.client(b"CONNECT 9\n");
    host.sends(&vec![0; 1 << 20]);
    let reads = host.state().reads;
    for _ in 0..100 {
        if world.watch_of(&host).is_some_and(|(read, _)| read) {
            world.event(host.fd, READABLE);
        }
    }
    assert_eq!(host.state().reads, reads, "the guest has not accepted");
}
