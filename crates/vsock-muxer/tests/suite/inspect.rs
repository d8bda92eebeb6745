// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Monitoring: listing connections, reasons for refusals, and ending one connection.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::time::Duration;

use vsock_backend_api::VsockAddr;
use vsock_muxer::{
    ConnectionId, ConnectionRefusal, Ending, Initiator, ListPosition, Op, Phase, RefusalReason,
    SocketType,
};

use crate::stream::After;
use crate::world::{READABLE, WRITABLE, World, bytes, header, op, reply, with};

/// Returns the refusals since the last call.
fn refusals(world: &mut World) -> Vec<ConnectionRefusal> {
    std::iter::from_fn(|| world.muxer.next_refusal()).collect()
}

/// Returns the only refusal since the last call, after checking its counter.
#[track_caller]
fn refused(world: &mut World) -> (RefusalReason, Initiator, String) {
    let [refusal] = refusals(world).try_into().unwrap();
    let counters = world.muxer.counters();
    let counted: Vec<_> = RefusalReason::ALL
        .into_iter()
        .filter(|reason| counters.refused(*reason) > 0)
        .collect();
    assert_eq!(counted, [refusal.reason], "{counters:?}");
    assert_eq!(counters.refused(refusal.reason), 1);
    (refusal.reason, refusal.initiator, refusal.to_string())
}

#[test]
fn a_connection_is_listed_as_it_is() {
    let mut world = World::new();
    world.pass(Duration::from_secs(5));
    let begun = world.now;
    let (host, _) = world.host_connects(9);
    world.pass(Duration::from_secs(2));
    world.host_sends(&host, b"pong!");
    world.receive(9);
    let [info] = world.muxer.connections().collect::<Vec<_>>()[..] else {
        panic!("not one connection");
    };
    assert_eq!(
        (info.key.peer.into(), info.key.local.into()),
        (9_u32, 1_u32 << 30)
    );
    assert_eq!(info.socket_type, SocketType::Stream);
    assert_eq!(info.phase, Phase::Connected);
    assert_eq!(info.initiator, Initiator::Host);
    assert_eq!(info.begun, begun);
    assert_eq!(info.age(world.now), Duration::from_secs(2));
    assert_eq!(
        (info.bytes_to_guest, info.in_flight, info.waiting),
        (5, 5, 0)
    );
    assert_eq!(u64::from(info.id), 1);

    let gauges = world.muxer.gauges();
    assert_eq!(
        (gauges.connections, gauges.handshakes, gauges.accepting),
        (1, 0, 0)
    );
    world.client(b"CONN");
    world.is_busy(true);
    world.guest_sends(&header(Op::Request, 1, 52), b"");
    world.guest_sends(&header(Op::ReadWrite, 77, 52), b"for no connection");
    let gauges = world.muxer.gauges();
    assert_eq!(
        (gauges.connections, gauges.handshakes, gauges.accepting),
        (2, 1, 1)
    );
    assert_eq!(gauges.resets_owed, 1);
}

#[test]
fn each_stall_is_counted_once() {
    let mut world = World::new();
    let host = world.host();
    world.answer(Ok(&host));
    let request = with(header(Op::Request, 1, 52), |header| header.buf_alloc = 4);
    world.guest_sends(&request, b"");
    world.ops();
    let stalls = |world: &World| {
        let counters = world.muxer.counters();
        (counters.credit_stalls, counters.host_stalls)
    };
    world.host_sends(&host, b"0123456789");
    assert_eq!(stalls(&world), (0, 0));
    assert_eq!(bytes(&world.receive(9)), b"0123");
    assert_eq!(stalls(&world), (1, 0));
    for _ in 0..5 {
        world.guest_sends(&op(Op::CreditRequest, &request), b"");
        world.receive(9);
    }
    assert_eq!(
        stalls(&world),
        (1, 0),
        "the same stall must not count again"
    );
    let taken = with(op(Op::CreditUpdate, &request), |header| header.fwd_cnt = 4);
    world.guest_sends(&taken, b"");
    assert_eq!(bytes(&world.receive(9)), b"4567");
    assert_eq!(stalls(&world), (2, 0));

    host.state().space = 3;
    for _ in 0..3 {
        world.guest_sends(&op(Op::ReadWrite, &taken), b"ab");
    }
    assert_eq!(stalls(&world), (2, 1));
    host.state().space = 100;
    world.event(host.fd, WRITABLE);
    assert_eq!(host.got(), b"ababab");
    world.guest_sends(&op(Op::ReadWrite, &taken), b"ab");
    assert_eq!(stalls(&world), (2, 1));
}

#[test]
fn the_refusal_of_a_host_client_is_reported_with_its_reason() {
    let mut world = World::new();
    world.client(b"CONNECT me\n");
    let (reason, initiator, text) = refused(&mut world);
    assert_eq!(
        (reason, initiator),
        (RefusalReason::CommandMalformed, Initiator::Host)
    );
    assert!(text.starts_with("host client: invalid command"), "{text}");

    let mut world = World::new();
    let host = world.client(b"CONNECT 5");
    host.state().after = After::End;
    world.event(host.fd, READABLE);
    assert_eq!(refused(&mut world).0, RefusalReason::CommandAbandoned);

    let mut world = World::new();
    world.client(b"");
    world.pass(Duration::from_secs(5));
    assert_eq!(refused(&mut world).0, RefusalReason::CommandTimedOut);

    for limit in [0, 1] {
        let mut world = World::limited(|limits| limits.max_handshakes(limit));
        (0..=limit).for_each(|_| drop(world.client(b"")));
        assert_eq!(refused(&mut world).0, RefusalReason::TooManyHandshakes);
    }

    let mut world = World::limited(|limits| limits.max_connections(1));
    world.host_connects(9);
    world.client(b"CONNECT 8\n");
    let (reason, _, text) = refused(&mut world);
    assert_eq!(reason, RefusalReason::TooManyConnections);
    assert!(
        text.starts_with("host client to guest port 8: the guest has"),
        "{text}"
    );

    let mut world = World::limited(|limits| limits.host_ports(5..6));
    world.host_connects(9);
    world.client(b"CONNECT 9\n");
    assert_eq!(refused(&mut world).0, RefusalReason::NoHostPort);
}

#[test]
fn a_guests_refusal_of_a_host_client_is_reported() {
    let mut world = World::new();
    world.client(b"CONNECT 9\n");
    let request = world.receive(1)[0].0;
    world.guest_sends(&reply(&request, Op::Reset), b"");
    let (reason, initiator, text) = refused(&mut world);
    assert_eq!(
        (reason, initiator),
        (RefusalReason::GuestRefused, Initiator::Host)
    );
    assert!(
        text.starts_with("host client to guest port 9: the guest has refused"),
        "{text}"
    );

    let mut world = World::new();
    world.client(b"CONNECT 9\n");
    world.receive(1);
    world.pass(Duration::from_secs(600));
    world.receive(1);
    assert_eq!(refused(&mut world).0, RefusalReason::GuestSilent);

    let mut world = World::new();
    world.client(b"CONNECT 9\n");
    world.pass(Duration::from_secs(600));
    assert_eq!(refused(&mut world).0, RefusalReason::NotDelivered);

    // A connection that was established is not refused when it ends.
    let mut world = World::new();
    let (_, connection) = world.host_connects(9);
    world.guest_sends(&op(Op::Reset, &connection), b"");
    assert_eq!(world.muxer.connections().count(), 0);
    assert_eq!(refusals(&mut world), []);
}

#[test]
fn the_refusal_of_a_guest_is_reported_with_its_reason() {
    let mut world = World::new();
    world.answer(Err(ErrorKind::NotFound));
    world.guest_sends(&header(Op::Request, 1, 52), b"");
    let (reason, initiator, text) = refused(&mut world);
    assert_eq!(
        (reason, initiator),
        (RefusalReason::Backend, Initiator::Guest)
    );
    let expected = "guest port 1 to host port 52: no host component accepts it (entity not found)";
    assert_eq!(text, expected);

    let mut world = World::limited(|limits| limits.max_accepting(0));
    world.is_busy(true);
    world.guest_sends(&header(Op::Request, 1, 52), b"");
    assert_eq!(refused(&mut world).0, RefusalReason::TooManyAccepting);

    let mut world = World::new();
    world.is_busy(true);
    world.guest_sends(&header(Op::Request, 1, 52), b"");
    world.pass(Duration::from_secs(600));
    assert_eq!(world.ops(), [Op::Reset]);
    assert_eq!(refused(&mut world).0, RefusalReason::HostSilent);

    let mut world = World::new();
    world.is_busy(true);
    world.guest_sends(&header(Op::Request, 1, 52), b"");
    world.is_busy(false);
    world.pass(Duration::from_secs(1));
    let (reason, _, text) = refused(&mut world);
    assert_eq!(reason, RefusalReason::Backend);
    assert!(text.ends_with("(connection refused)"), "{text}");

    let mut world = World::limited(|limits| limits.max_connections(1));
    world.guest_connects(1, 52);
    world.guest_sends(&header(Op::Request, 2, 52), b"");
    assert_eq!(refused(&mut world).0, RefusalReason::TooManyConnections);

    let mut world = World::new();
    world.muxer.begin_shutdown(world.now);
    world.apply();
    world.guest_sends(&header(Op::Request, 1, 52), b"");
    assert_eq!(refused(&mut world).0, RefusalReason::ShuttingDown);
}

#[test]
fn a_connection_that_is_reset_ends_on_both_sides_with_data_in_flight() {
    let mut world = World::new();
    let (host, connection) = world.guest_connects(1, 52);
    let (other, _) = world.guest_connects(2, 52);
    host.state().space = 1;
    world.guest_sends(
        &op(Op::ReadWrite, &connection),
        b"some of it waits for the host",
    );
    world.host_sends(&host, b"and this for the guest");
    let id = |world: &World, port| {
        let mut all = world.muxer.connections();
        all.find(|info| u32::from(info.key.peer) == port)
            .unwrap()
            .id
    };
    let (first, second) = (id(&world, 1), id(&world, 2));
    assert!(
        !world
            .muxer
            .reset_connection(world.now, ConnectionId::from(3))
    );
    assert!(world.muxer.reset_connection(world.now, first));
    world.apply();
    assert!(host.state().aborted);
    let packets = world.receive(9);
    assert_eq!(packets.len(), 1, "no data precedes or follows it");
    let rst = packets[0].0;
    assert_eq!(
        (rst.op, rst.dst_port, rst.src_port),
        (Op::Reset.into(), 1, 52)
    );
    assert_eq!(world.ended(Ending::Aborted), 1);
    assert!(
        !world.muxer.reset_connection(world.now, first),
        "the connection is gone"
    );

    // The next connection with its ports has another number.
    world.guest_connects(1, 52);
    assert_ne!(id(&world, 1), first);
    assert!(!world.muxer.reset_connection(world.now, first));
    assert_eq!(id(&world, 2), second);
    assert!(!other.state().closed);
}

#[test]
fn a_connection_unknown_to_the_guest_is_reset_without_a_packet_to_it() {
    let mut world = World::new();
    let client = world.client(b"CONNECT 9\n");
    assert!(
        world
            .muxer
            .reset_connection(world.now, ConnectionId::from(1))
    );
    world.apply();
    assert!(client.state().closed);
    assert_eq!(world.ops(), []);
    assert_eq!(world.muxer.connections().count(), 0);
}

#[test]
fn a_listing_in_pieces_names_each_lasting_connection_once() {
    let mut world = World::new();
    let connections: Vec<_> = (1..=10)
        .map(|port| world.guest_connects(port, 52))
        .collect();
    let (mut position, mut listed) = (Some(ListPosition::default()), Vec::new());
    let mut turn = 0;
    while let Some(from) = position {
        position = world.muxer.connections_from(from, 3, &mut listed);
        // The sixth connection is listed before it ends, and a new one takes its place.
        if turn == 1 {
            let (_, sixth) = &connections[5];
            world.guest_sends(&op(Op::Reset, sixth), b"");
            world.guest_connects(20, 52);
        }
        turn += 1;
    }
    assert_eq!(turn, 4);
    let ports: Vec<u32> = listed.iter().map(|info| info.key.peer.into()).collect();
    let distinct: BTreeSet<u32> = ports.iter().copied().collect();
    assert_eq!(ports.len(), distinct.len());
    assert!((1..=10).all(|port| distinct.contains(&port)), "{ports:?}");
    listed.clear();
    let beyond = ListPosition::default();
    assert_eq!(
        world
            .muxer
            .connections_from(beyond, usize::MAX, &mut listed),
        None
    );
    assert_eq!(listed.len(), 10);
}

#[test]
fn a_refusal_between_guests_names_the_other_guest() {
    let to_sibling = with(header(Op::Request, 1, 52), |header| header.dst_cid = 7);
    let mut world = World::of_siblings();
    world.answer(Err(ErrorKind::ConnectionRefused));
    world.guest_sends(&to_sibling, b"");
    let (reason, initiator, text) = refused(&mut world);
    assert_eq!(
        (reason, initiator),
        (RefusalReason::Backend, Initiator::Guest)
    );
    let expected = "guest port 1 to port 52 of guest 7: the other guest cannot be reached or has \
                    refused (connection refused)";
    assert_eq!(text, expected);

    let mut world = World::of_siblings();
    let sibling = |world: &mut World| {
        let host = world.host();
        host.state().requested = Some(80);
        host.state().peer = Some(VsockAddr { cid: 7, port: 1000 });
        world.comes(&host);
    };
    sibling(&mut world);
    sibling(&mut world);
    let (reason, initiator, text) = refused(&mut world);
    assert_eq!(
        (reason, initiator),
        (RefusalReason::NoHostPort, Initiator::Host)
    );
    let expected =
        "port 1000 of guest 7 to guest port 80: an old connection still uses the same ports";
    assert_eq!(text, expected);
    let (request, _) = world.receive(1)[0];
    let reset = with(reply(&request, Op::Reset), |header| header.dst_cid = 7);
    world.guest_sends(&reset, b"");
    let text = refusals(&mut world)[0].to_string();
    assert!(
        text.starts_with("port 1000 of guest 7 to guest port 80: the guest has refused"),
        "{text}"
    );
}
