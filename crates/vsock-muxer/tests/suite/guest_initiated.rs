// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Guest-initiated connections.

use std::io::ErrorKind;
use std::time::Duration;

use vsock_backend_api::VsockAddr;
use vsock_proto::{Ending, Op};

use crate::stream::Host;
use crate::world::{GUEST, WRITABLE, World, header, op, seqpacket, shutdown};

#[test]
fn t26_a_refusal_is_exactly_one_rst_immediately() {
    let mut world = World::new();
    for error in [ErrorKind::ConnectionRefused, ErrorKind::Other] {
        world.answer(Err(error));
        world.guest_sends(&header(Op::Request, 1, 52), b"");
        assert_eq!(world.ops(), [Op::Reset]);
    }
    assert_eq!(world.muxer.counters().refused_by_backend, 2);
    assert_eq!(world.muxer.connections().count(), 0);
}

#[test]
fn t28_a_request_for_an_existing_tuple_replaces_the_connection() {
    let (mut world, old, request) = World::connected();
    world.guest_sends(&op(Op::ReadWrite, &request), b"old");
    let new = world.host();
    world.answer(Ok(&new));
    world.guest_sends(&request, b"");
    assert!(old.state().closed);
    assert_eq!(
        world.ops(),
        [Op::Response],
        "an RST would reset the new connection"
    );
    world.guest_sends(&op(Op::ReadWrite, &request), b"new");
    assert_eq!((old.got(), new.got()), (b"old".to_vec(), b"new".to_vec()));
    assert_eq!(world.ended(Ending::Superseded), 1);
    assert_eq!(world.muxer.connections().count(), 1);
}

#[test]
fn t28_bytes_accepted_from_the_old_connection_still_arrive_while_the_new_one_is_open() {
    let (mut world, old, request) = World::connected();
    old.state().space = 0;
    world.guest_sends(&op(Op::ReadWrite, &request), b"last words");
    world.guest_sends(&shutdown(&request, 2), b"");
    let new = world.host();
    world.answer(Ok(&new));
    world.guest_sends(&request, b"");
    assert_eq!(world.ops(), [Op::Response]);
    assert_eq!(world.muxer.connections().count(), 2);
    old.state().space = usize::MAX;
    world.event(old.fd, WRITABLE);
    assert_eq!(old.got(), b"last words");
    assert!(old.state().shut_write && old.state().closed);
    world.guest_sends(&op(Op::ReadWrite, &request), b"new");
    assert_eq!(new.got(), b"new", "the new connection has kept the tuple");
}

#[test]
fn t30_t31_orphans_get_one_rst_and_an_rst_gets_none() {
    let mut world = World::new();
    for orphan in [
        Op::ReadWrite,
        Op::Shutdown,
        Op::CreditRequest,
        Op::CreditUpdate,
        Op::Response,
    ] {
        world.guest_sends(&header(orphan, 1, 52), b"");
        assert_eq!(world.ops(), [Op::Reset], "{orphan:?}");
    }
    world.guest_sends(&header(Op::Reset, 1, 52), b"");
    assert_eq!(world.ops(), []);
    assert_eq!(world.muxer.counters().packets_unmatched, 6);
}

#[test]
fn a_pending_rst_does_not_end_the_connection_that_follows_it() {
    let mut world = World::new();
    world.guest_sends(&header(Op::ReadWrite, 1, 52), b"orphan");
    let host = world.host();
    world.answer(Ok(&host));
    world.guest_sends(&header(Op::Request, 1, 52), b"");
    assert_eq!(world.ops(), [Op::Response]);
}

#[test]
fn t35_a_busy_host_is_asked_again_without_blocking_and_gets_the_peers_address() {
    for messages in [false, true] {
        let mut world = World::new();
        let mut host = world.host();
        let mut request = header(Op::Request, 4000, 52);
        if messages {
            world.script().seqpacket = true;
            host = Host::of_messages(host.fd);
            request = seqpacket(request);
        }
        for _ in 0..3 {
            world.answer(Err(ErrorKind::WouldBlock));
        }
        world.answer(Ok(&host));
        world.guest_sends(&request, b"");
        for pause in [10, 20, 40] {
            assert_eq!(world.ops(), []);
            assert_eq!(world.due(), Duration::from_millis(pause));
            world.pass(world.due());
        }
        assert_eq!(world.ops(), [Op::Response]);
        assert_eq!(world.watch_of(&host), Some((true, false)));
        assert_eq!(world.muxer.deadline(), None);
        let addr = |cid, port| VsockAddr { cid, port };
        let asked_from = &world.script().asked_from;
        assert_eq!(*asked_from, [(addr(GUEST, 4000), addr(2, 52)); 4]);
    }
}

#[test]
fn t76_a_storm_of_requests_to_a_busy_host_is_served_in_turns() {
    let mut world = World::limited(|limits| limits.max_accepting(2000));
    for port in 0..2000 {
        world.answer(Err(ErrorKind::WouldBlock));
        world.guest_sends(&header(Op::Request, port, 52), b"");
    }
    let asked = |world: &World| world.script().asked.len();
    assert_eq!(
        asked(&world),
        2000,
        "each new connection causes one attempt"
    );
    world.answer(Err(ErrorKind::WouldBlock));
    world.pass(world.due());
    assert_eq!(
        asked(&world),
        2001,
        "and all of them together one more later"
    );

    for _ in 0..2000 {
        let host = world.host();
        world.answer(Ok(&host));
    }
    let (mut before, mut turns) = (asked(&world), 0);
    world.now = world.now.saturating_add(world.due());
    while world.muxer.deadline().is_some_and(|due| due <= world.now) {
        world.pass(Duration::ZERO);
        let now = asked(&world);
        assert!(now - before <= 256, "{} in one turn", now - before);
        before = now;
        turns += 1;
    }
    assert_eq!(before, 4001);
    assert!(turns > 1);
}

#[test]
fn t76_no_more_than_the_limit_wait_for_a_busy_host() {
    let mut world = World::limited(|limits| limits.max_accepting(2));
    let busy = |world: &mut World, port| {
        world.answer(Err(ErrorKind::WouldBlock));
        world.guest_sends(&header(Op::Request, port, 52), b"");
    };
    for port in 1..=3 {
        busy(&mut world, port);
    }
    assert_eq!(world.ops(), [Op::Reset]);
    assert_eq!(world.muxer.counters().accepting_at_limit, 1);
    // A component that is not busy is unaffected.
    world.guest_connects(4, 53);
    // A place becomes free when the guest gives up, when the host provides a stream, and when it
    // refuses.
    world.guest_sends(&header(Op::Reset, 1, 52), b"");
    busy(&mut world, 5);
    assert_eq!(world.ops(), []);
    let host = world.host();
    world.answer(Ok(&host));
    world.pass(Duration::from_millis(10));
    assert_eq!(world.ops(), [Op::Response, Op::Reset]);
    for port in 6..=7 {
        busy(&mut world, port);
    }
    assert_eq!(world.ops(), []);
    // Also when the guest connects again, when the time expires, and when the device is reset.
    busy(&mut world, 6);
    assert_eq!(world.muxer.counters().accepting_at_limit, 1);
    world.is_busy(true);
    while let Some(deadline) = world.muxer.deadline() {
        world.pass(deadline.since(world.now));
    }
    assert_eq!(world.ops(), [Op::Reset, Op::Reset]);
    for port in 8..=9 {
        busy(&mut world, port);
    }
    world.muxer.transport_reset(world.now);
    for port in 8..=9 {
        busy(&mut world, port);
    }
    assert_eq!(world.ops(), []);
    assert_eq!(world.muxer.counters().accepting_at_limit, 1);
}

#[test]
fn t35_a_host_that_refuses_after_it_was_busy_causes_an_rst() {
    let mut world = World::new();
    world.answer(Err(ErrorKind::WouldBlock));
    world.guest_sends(&header(Op::Request, 1, 52), b"");
    world.pass(Duration::from_millis(10));
    assert_eq!(world.ops(), [Op::Reset]);
    assert_eq!(world.muxer.deadline(), None);
}

#[test]
fn t35_t69_a_host_that_stays_busy_causes_an_rst_within_the_limit_and_no_spinning() {
    let mut world = World::new();
    world.is_busy(true);
    world.guest_sends(&header(Op::Request, 1, 52), b"");
    let mut asked = 0;
    while let Some(deadline) = world.muxer.deadline() {
        assert!(deadline > world.now, "the loop would spin");
        world.pass(deadline.since(world.now));
        asked += 1;
        assert!(asked < 40, "at most ten times a second");
    }
    assert_eq!(world.now.as_nanos(), 2_000_000_000);
    // The guest gives up by itself. Nothing is due any more, although it has no buffers.
    world.guest_sends(&header(Op::Request, 2, 52), b"");
    world.guest_sends(&shutdown(&header(Op::Shutdown, 2, 52), 3), b"");
    assert_eq!(world.muxer.deadline(), None);
    assert_eq!(world.ops(), [Op::Reset, Op::Reset]);
    assert_eq!(world.muxer.connections().count(), 0);
}

#[test]
fn t97_the_limit_counts_live_connections_of_both_kinds() {
    let mut world = World::limited(|limits| limits.max_connections(2));
    world.host_connects(9);
    let (_, second) = world.guest_connects(1, 52);
    world.guest_sends(&header(Op::Request, 2, 52), b"");
    assert_eq!(world.ops(), [Op::Reset]);
    assert_eq!(world.muxer.counters().refused_at_limit, 1);
    world.guest_sends(&op(Op::Reset, &second), b"");
    world.guest_connects(2, 52);
}

#[test]
fn a_seqpacket_request_gets_an_rst_of_its_type() {
    let mut world = World::new();
    let request = seqpacket(header(Op::Request, 1, 52));
    world.guest_sends(&request, b"");
    let packets = world.receive(9);
    assert_eq!(packets.len(), 1);
    assert_eq!((packets[0].0.op, packets[0].0.socket_type), (3, 2));
}

#[test]
fn t111_a_packet_of_another_type_leaves_the_connection_alone() {
    let (mut world, host, request) = World::connected();
    for wrong in [Op::ReadWrite, Op::Request] {
        world.guest_sends(&seqpacket(op(wrong, &request)), b"");
        assert_eq!(world.receive(9)[0].0.socket_type, 2);
    }
    world.guest_sends(&op(Op::ReadWrite, &request), b"still here");
    assert_eq!(host.got(), b"still here");
}
