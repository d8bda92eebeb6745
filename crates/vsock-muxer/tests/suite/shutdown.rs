// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Shutting down a device whose guest continues.

use std::collections::BTreeSet;
use std::io::ErrorKind;

use vsock_proto::{Config, Ending, Op, SocketTypes};

use crate::world::{READABLE, Scripted, World, header, op, reply};

fn shut_down(world: &mut World) {
    world.muxer.begin_shutdown(world.now);
    world.apply();
}

#[test]
fn t133_each_connection_that_the_guest_knows_gets_an_rst_and_no_other_does() {
    let mut world = World::new();
    let silent = world.client(b"CONNECT");
    let (host_begun, first) = world.host_connects(9);
    let (guest_begun, second) = world.guest_connects(1, 52);
    let asked = world.client(b"CONNECT 10\n");
    let request = world.receive(1)[0].0;
    world.host_sends(&guest_begun, b"not yet with the guest");
    let unasked = world.client(b"CONNECT 11\n");
    world.answer(Err(ErrorKind::WouldBlock));
    world.guest_sends(&header(Op::Request, 2, 52), b"");
    let unanswered = world.host();
    world.answer(Ok(&unanswered));
    world.guest_sends(&header(Op::Request, 3, 53), b"");

    shut_down(&mut world);
    let begun = [&host_begun, &guest_begun];
    for host in [&silent, &asked, &unasked, &unanswered]
        .iter()
        .chain(&begun)
    {
        assert!(host.state().closed);
    }
    assert!(world.watched.is_empty(), "backends are not watched either");
    assert!(world.muxer.owes_resets());
    let packets = world.receive(64);
    let told = packets.iter().map(|(rst, _)| {
        assert_eq!(rst.op, u16::from(Op::Reset));
        (rst.dst_port, rst.src_port)
    });
    let told: BTreeSet<_> = told.collect();
    let known = [
        (first.src_port, first.dst_port),
        (second.src_port, second.dst_port),
        (request.dst_port, request.src_port),
        (2, 52),
        (3, 53),
    ];
    assert_eq!(packets.len(), known.len());
    assert_eq!(told, BTreeSet::from(known));
    assert!(!world.muxer.owes_resets());
    assert_eq!(world.muxer.deadline(), None);
    assert_eq!(world.muxer.connections().count(), 0);
    assert_eq!(world.ended(Ending::Aborted), 6);
}

#[test]
fn t133_rsts_beyond_every_limit_are_sent_as_buffers_arrive() {
    let mut world = World::limited(|limits| limits.max_resets(8));
    for port in 0..700 {
        world.guest_connects(port, 52);
    }
    shut_down(&mut world);
    let mut told = BTreeSet::new();
    while world.muxer.owes_resets() {
        assert!(world.muxer.can_take_packet());
        let packets = world.receive(10);
        assert_eq!(packets.len(), 10);
        for (rst, _) in packets {
            assert_eq!(rst.op, u16::from(Op::Reset));
            assert!(told.insert(rst.dst_port), "told twice");
        }
    }
    assert_eq!(told, (0..700).collect());
}

#[test]
fn t133_no_connection_begins_after_a_shutdown() {
    let mut world = World::new();
    // After a failure, the backend would normally be asked again.
    let failure = Err(ErrorKind::OutOfMemory);
    world.script().clients.push_back(failure);
    world.backend_event();
    let token = world.watched.values().next().unwrap().token;
    shut_down(&mut world);
    assert_eq!(world.muxer.deadline(), None);
    assert!(!world.muxer.owes_resets());

    let asked = world.script().accepts;
    let waiting = world.host();
    world.queue_client(&waiting);
    // An event of the same batch as the one that led to the stop.
    world.muxer.on_event(world.now, token, READABLE);
    let late = Scripted::new(1);
    world.muxer.add_backend(Box::new(late)).unwrap();
    world.apply();
    assert!(world.watched.is_empty());
    assert_eq!(world.script().accepts, asked);

    let host = world.host();
    world.answer(Ok(&host));
    world.guest_sends(&header(Op::Request, 1, 52), b"");
    assert!(world.muxer.owes_resets());
    assert_eq!(world.ops(), [Op::Reset]);
    assert!(world.script().asked.is_empty());

    world.activate(SocketTypes::STREAM);
    assert_eq!(world.watched.len(), 2);
    world.guest_connects(1, 52);
}

#[test]
fn t133_a_guest_that_resets_or_requests_again_gets_at_most_one_rst() {
    let mut world = World::new();
    let (_, first) = world.host_connects(9);
    let (_, second) = world.guest_connects(1, 52);
    shut_down(&mut world);
    world.guest_sends(&op(Op::Reset, &first), b"");
    world.guest_sends(&op(Op::Request, &second), b"");
    let packets = world.receive(64);
    assert_eq!(packets.len(), 1);
    assert_eq!(reply(&packets[0].0, Op::Reset).src_port, second.src_port);
    assert!(!world.muxer.owes_resets());
}

#[test]
fn t133_rsts_that_were_pending_before_are_sent_too() {
    let mut world = World::new();
    world.guest_sends(&header(Op::ReadWrite, 77, 77), b"orphan");
    shut_down(&mut world);
    assert!(world.muxer.owes_resets());
    assert_eq!(world.ops(), [Op::Reset]);
    assert!(!world.muxer.owes_resets());
}

#[test]
fn a_muxer_without_a_guest_sends_no_reset() {
    let mut world = World::asleep(Config::default());
    shut_down(&mut world);
    assert!(!world.muxer.owes_resets());
    world.guest_sends(&header(Op::Request, 1, 52), b"");
    assert_eq!(world.ops(), []);
    world.activate(SocketTypes::STREAM);
    world.guest_connects(1, 52);
    shut_down(&mut world);
    world.muxer.reset(world.now);
    assert!(!world.muxer.owes_resets());
    assert_eq!(world.ops(), []);
}
