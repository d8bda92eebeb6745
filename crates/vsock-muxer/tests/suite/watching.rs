// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Requests to the event loop, and their absence.

use std::io::ErrorKind;
use std::time::Duration;

use vsock_proto::{Header, Op};

use crate::stream::After;
use crate::world::{HANGUP, READABLE, WRITABLE, World, bytes, op, ready};

#[test]
fn t57_a_steady_flow_makes_no_event_loop_request() {
    let (mut world, host, mut request) = World::connected();
    let before = world.changes;
    for round in 1..100 {
        world.host_sends(&host, b"0123456789");
        assert_eq!(bytes(&world.receive(9)), b"0123456789");
        request.fwd_cnt = round * 10;
        world.guest_sends(&op(Op::ReadWrite, &request), b"answer");
    }
    assert_eq!(world.changes, before);
}

/// Runs a level-triggered event loop and returns how many times it was woken.
fn wake_ups(world: &mut World, host: &crate::stream::Host) -> usize {
    (0..1000)
        .take_while(|_| {
            let readable = world.watch_of(host).is_some_and(|(read, _)| read);
            if readable {
                world.event(host.fd, READABLE);
            }
            readable
        })
        .count()
}

#[test]
fn t69_a_guest_without_buffers_does_not_keep_the_loop_awake() {
    let (mut world, host, _) = World::connected();
    host.sends(b"waits");
    assert_eq!(wake_ups(&mut world, &host), 2);
    assert_eq!(bytes(&world.receive(9)), b"waits");
    assert_eq!(world.watch_of(&host), Some((true, false)), "watched again");
}

#[test]
fn t57_a_guest_without_credit_does_not_keep_the_loop_awake() {
    let (mut world, host, mut header) = World::connected();
    world.host_sends(&host, &vec![1; 70_000]);
    world.receive(99);
    assert_eq!(world.watch_of(&host), Some((true, false)));
    assert_eq!(wake_ups(&mut world, &host), 1);
    header.fwd_cnt = 64 * 1024;
    world.guest_sends(&op(Op::CreditUpdate, &header), b"");
    assert_eq!(bytes(&world.receive(99)).len(), 70_000 - 65_536);
    assert_eq!(world.watch_of(&host), Some((true, false)));
}

#[test]
fn t67_a_spurious_event_does_no_harm() {
    let (mut world, host, _) = World::connected();
    let before = world.changes;
    for _ in 0..5 {
        world.event(host.fd, READABLE);
        world.event(host.fd, WRITABLE);
        assert_eq!(world.receive(9), []);
    }
    assert_eq!(world.changes, before);
    assert!(!host.state().closed);
}

#[test]
fn t66_several_bits_at_once_all_count() {
    let (mut world, host, request) = World::connected();
    host.state().space = 0;
    world.guest_sends(&op(Op::ReadWrite, &request), b"out");
    host.state().space = 9;
    host.sends(b"in");
    world.event(host.fd, ready(true, true, false));
    assert_eq!(host.got(), b"out");
    assert_eq!(bytes(&world.receive(9)), b"in");
}

#[test]
fn t71_a_hangup_that_cannot_be_used_is_unregistered_and_not_lost() {
    let (mut world, host, mut header) = World::connected();
    host.sends(&vec![1; 70_000]);
    host.state().after = After::End;
    world.event(host.fd, HANGUP);
    world.event(host.fd, HANGUP);
    assert_eq!(world.watch_of(&host), None);
    let mut got = bytes(&world.receive(99)).len();
    assert_eq!(got, 65_536, "no more than the credit");
    header.fwd_cnt = 65_536;
    world.guest_sends(&op(Op::CreditUpdate, &header), b"");
    let packets = world.receive(99);
    got += bytes(&packets).len();
    assert_eq!(got, 70_000);
    let last = packets.last().unwrap().0;
    assert_eq!(
        (last.op, last.flags),
        (Op::Shutdown.into(), 3),
        "both directions"
    );
}

#[test]
fn t70_a_killed_connection_leaves_nothing_registered() {
    let (mut world, host, request) = World::connected();
    host.state().space = 0;
    world.guest_sends(&op(Op::ReadWrite, &request), b"stuck");
    assert_eq!(world.watch_of(&host), Some((true, true)));
    host.state().write_error = Some(ErrorKind::ConnectionReset);
    host.state().after = After::Failure(ErrorKind::ConnectionReset);
    world.event(host.fd, HANGUP);
    world.receive(9);
    assert!(host.state().closed);
    assert_eq!(world.watched.len(), 1, "only the backend is watched");
}

/// A connection whose stream has a separate descriptor for writing.
fn two_descriptors(world: &mut World) -> (crate::stream::Host, Header) {
    let (host, request) = world.guest_connects(1, 52);
    host.state().write_fd = Some(500);
    (host, request)
}

#[test]
fn a_second_descriptor_is_taken_when_it_is_needed_and_stays() {
    let mut world = World::new();
    let (host, request) = two_descriptors(&mut world);
    world.guest_sends(&op(Op::ReadWrite, &request), b"fits");
    assert!(!world.watched.contains_key(&500));
    host.state().space = 0;
    world.guest_sends(&op(Op::ReadWrite, &request), b"does not");
    assert!(world.watched[&500].interest.write);
    assert_eq!(world.watch_of(&host), Some((true, false)));
    host.state().space = 99;
    world.event(500, WRITABLE);
    assert_eq!(host.got(), b"fitsdoes not");
    let before = world.changes;
    for _ in 0..9 {
        host.state().space = 1;
        world.guest_sends(&op(Op::ReadWrite, &request), b"again");
        host.state().space = 99;
        world.event(500, WRITABLE);
    }
    assert_eq!(world.changes, before, "it stays registered");
    world.event(500, WRITABLE);
    // A level-triggered loop needs the watch withdrawn.
    assert!(!world.watched[&500].interest.write);
    host.state().space = 0;
    world.guest_sends(&op(Op::ReadWrite, &request), b"x");
    assert!(world.watched[&500].interest.write);
    world.guest_sends(&op(Op::Reset, &request), b"");
    assert!(host.state().closed);
    assert_eq!(world.watched.len(), 1);
}

/// If space becomes free during a write, the descriptor may stay ready, without another edge.
#[test]
fn a_short_write_is_tried_again_if_no_edge_is_guaranteed() {
    let mut world = World::new();
    let (host, request) = two_descriptors(&mut world);
    host.state().space = 0;
    world.guest_sends(&op(Op::ReadWrite, &request), b"one ");
    host.state().space = 99;
    world.event(500, WRITABLE);
    assert!(world.watched[&500].interest.write, "its edges are awaited");
    host.state().space = 2;
    host.state().space_after_short_write = 99;
    world.guest_sends(&op(Op::ReadWrite, &request), b"two");
    assert_eq!(host.got(), b"one two");
}

#[test]
fn without_a_descriptor_for_writing_a_timer_retries() {
    let mut world = World::new();
    let (host, request) = two_descriptors(&mut world);
    host.state().write_fd_failures = 2;
    host.state().space = 0;
    world.guest_sends(&op(Op::ReadWrite, &request), b"patience");
    assert_eq!(world.muxer.counters().watch_failures, 1);
    world.pass(Duration::from_millis(10));
    assert_eq!(world.muxer.counters().watch_failures, 2);
    host.state().space = 3;
    world.pass(Duration::from_millis(20));
    assert_eq!(host.got(), b"pat");
    assert!(
        world.watched[&500].interest.write,
        "now the descriptor is available"
    );
    host.state().space = 99;
    world.event(500, WRITABLE);
    assert_eq!(host.got(), b"ience");
    assert_eq!(world.muxer.deadline(), None);
}

#[test]
fn an_in_process_peer_that_has_gone_is_noticed_on_any_event() {
    let mut world = World::new();
    let host = world.client(b"CONNECT 9\n");
    world.receive(1);
    host.state().peer_gone = true;
    host.state().after = After::End;
    world.event(host.fd, READABLE);
    assert_eq!(world.ops(), [Op::Reset], "the guest had not answered");
    assert!(host.state().closed);
}
