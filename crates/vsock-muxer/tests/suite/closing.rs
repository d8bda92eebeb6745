// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The end of one direction and of both.

use std::io::ErrorKind;
use std::time::Duration;

use vsock_proto::{Ending, Op};

use crate::stream::After;
use crate::world::{HANGUP, READABLE, WRITABLE, World, bytes, op, shutdown};

#[test]
fn t82_a_guests_half_close_follows_its_bytes_once() {
    let (mut world, host, request) = World::connected();
    host.state().space = 0;
    world.guest_sends(&op(Op::ReadWrite, &request), b"question");
    world.guest_sends(&shutdown(&request, 2), b"");
    assert!(!host.state().shut_write);
    host.state().space = 99;
    world.event(host.fd, WRITABLE);
    assert_eq!(host.got(), b"question");
    assert!(host.state().shut_write && !host.state().shut_read);
    world.host_sends(&host, b"answer");
    assert_eq!(bytes(&world.receive(9)), b"answer");
}

#[test]
fn t83_t84_a_hosts_half_close_leaves_the_other_direction_open_until_an_rst_ends_both() {
    let (mut world, host, request) = World::connected();
    host.sends(b"request");
    host.state().after = After::End;
    world.event(host.fd, READABLE);
    let packets = world.receive(9);
    assert_eq!(bytes(&packets), b"request");
    let end = packets.last().unwrap().0;
    assert_eq!((end.op, end.flags), (Op::Shutdown.into(), 2));
    world.guest_sends(&op(Op::ReadWrite, &request), b"reply");
    assert_eq!(host.got(), b"reply");
    world.guest_sends(&shutdown(&request, 2), b"");
    assert_eq!(world.ops(), [Op::Reset]);
    assert!(host.state().shut_write && host.state().closed && !host.state().aborted);
    let endings = world.muxer.counters().endings;
    assert_eq!((endings.of(Ending::Clean), endings.total()), (1, 1));
    assert_eq!(format!("{endings:?}"), "{Clean: 1}");
    let listed: Vec<_> = endings.iter().filter(|(_, count)| *count > 0).collect();
    assert_eq!(listed, [(Ending::Clean, 1)]);
    assert!(endings.iter().all(|(one, count)| endings.of(one) == count));
}

#[test]
fn t83_a_host_that_has_left_is_one_shutdown_of_both_directions() {
    for hangup in [true, false] {
        let (mut world, host, request) = World::connected();
        host.sends(b"last words");
        host.state().after = After::End;
        world.event(host.fd, if hangup { HANGUP } else { READABLE });
        // Or it leaves between that event and the read, before a hang-up is reported.
        host.state().peer_gone = !hangup;
        let packets = world.receive(9);
        assert_eq!(bytes(&packets), b"last words");
        let told = packets.last().unwrap().0;
        assert_eq!(packets.len(), 2);
        assert_eq!((told.op, told.flags), (Op::Shutdown.into(), 3));
        assert_eq!(
            world.watch_of(&host),
            None,
            "it has no more events to report"
        );
        world.guest_sends(&op(Op::Reset, &request), b"");
        assert!(host.state().closed && !host.state().aborted);
    }
}

#[test]
fn t83_a_hangup_ends_a_connection_whose_guest_stops_reading() {
    let (mut world, host, request) = World::connected();
    host.sends(b"unread");
    host.state().after = After::End;
    // The guest provides no buffer, and then receives no more.
    world.event(host.fd, HANGUP);
    world.guest_sends(&shutdown(&request, 1), b"");
    assert_eq!(world.ops().last(), Some(&Op::Reset));
    assert!(host.state().closed);
}

#[test]
fn t83_a_hangup_whose_stream_finds_no_end_is_reported_once() {
    let (mut world, host, _) = World::connected();
    world.event(host.fd, HANGUP);
    let packets = world.receive(9);
    let flags: Vec<u32> = packets.iter().map(|packet| packet.0.flags).collect();
    assert_eq!(flags, [1], "its data may still arrive");
    assert!(host.state().reads < 5);
}

#[test]
fn t85_bytes_sent_before_the_close_arrive_before_the_end() {
    let (mut world, host, mut header) = World::connected();
    let sent: Vec<u8> = (0..1_u32 << 20).map(|i| (i % 253) as u8).collect();
    host.sends(&sent);
    host.state().after = After::Failure(ErrorKind::ConnectionReset);
    // The guest has provided no buffer.
    world.event(host.fd, HANGUP);
    let mut got = Vec::new();
    let mut last = 0;
    while last != u16::from(Op::Reset) {
        let packets = world.receive(16);
        got.extend(bytes(&packets));
        last = packets.last().unwrap().0.op;
        header.fwd_cnt = got.len() as u32;
        if last != u16::from(Op::Reset) {
            world.guest_sends(&op(Op::CreditUpdate, &header), b"");
        }
    }
    assert!(got == sent);
    assert!(host.state().closed);
}

/// A socket reports that it is writable only when much of its buffer is free.
#[test]
fn t86_t87_space_without_an_event_counts_before_a_host_is_given_up() {
    let (mut world, host, request) = World::connected();
    host.state().space = 0;
    world.guest_sends(&op(Op::ReadWrite, &request), b"abc");
    world.guest_sends(&shutdown(&request, 3), b"");
    for _ in 0..2 {
        host.state().space = 1;
        world.pass(Duration::from_secs(30));
    }
    assert_eq!(host.got(), b"ab");
    world.pass(Duration::from_secs(30));
    assert_eq!(world.ops(), [Op::Reset]);
    assert!(host.state().aborted, "it has not received everything");
    assert_eq!(world.ended(Ending::Forfeited), 1);
}

#[test]
fn t89_a_guests_rst_frees_everything_immediately() {
    let mut world = World::new();
    let (host, header) = world.host_connects(9);
    world.guest_sends(&op(Op::Reset, &header), b"");
    assert!(host.state().closed);
    assert!(host.state().aborted && !host.state().shut_write);
    assert_eq!(world.muxer.connections().count(), 0);
    assert_eq!(world.watched.len(), 1);
    assert_eq!(world.ops(), []);
    assert_eq!(world.muxer.deadline(), None);
}

#[test]
fn a_guest_that_closes_ends_the_hosts_stream_in_order() {
    let (mut world, host, request) = World::connected();
    world.guest_sends(&op(Op::ReadWrite, &request), b"last words");
    world.guest_sends(&shutdown(&request, 3), b"");
    assert_eq!(host.got(), b"last words");
    let state = host.state();
    assert!(state.shut_write && state.closed && !state.aborted);
}

#[test]
fn t90_t91_a_broken_stream_is_closed_immediately_and_its_rst_is_the_last_packet() {
    let (mut world, host, request) = World::connected();
    world.guest_sends(&op(Op::CreditRequest, &request), b"");
    host.state().after = After::Failure(ErrorKind::ConnectionReset);
    world.event(host.fd, READABLE);
    assert_eq!(world.ops(), [Op::Reset], "and not the pending update");
    assert!(host.state().closed);
    assert_eq!(world.ops(), []);
}
