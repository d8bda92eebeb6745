// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Streams of backends that take time to connect.

use std::io::ErrorKind;
use std::time::Duration;

use vsock_proto::{Ending, Header, Op};

use crate::stream::Host;
use crate::world::{READABLE, WRITABLE, World, header, op};

/// A connection of the guest whose stream is not connected yet.
fn pending() -> (World, Host, Header) {
    let mut world = World::new();
    let host = world.host();
    host.state().unconnected = Some(ErrorKind::WouldBlock);
    world.answer(Ok(&host));
    let request = header(Op::Request, 4000, 52);
    world.guest_sends(&request, b"");
    assert_eq!(world.ops(), []);
    assert_eq!(world.watch_of(&host), Some((true, true)));
    (world, host, request)
}

#[test]
fn the_guest_is_answered_when_the_stream_is_connected() {
    let (mut world, host, request) = pending();
    world.event(host.fd, WRITABLE);
    assert_eq!(
        world.ops(),
        [],
        "an event before the connection has no effect"
    );
    host.state().unconnected = None;
    host.sends(b"first");
    world.event(host.fd, WRITABLE);
    assert_eq!(world.watch_of(&host), Some((true, false)));
    world.event(host.fd, READABLE);
    assert_eq!(world.ops(), [Op::Response, Op::ReadWrite]);
    world.guest_sends(&op(Op::ReadWrite, &request), b"hello");
    assert_eq!(host.got(), b"hello");
}

#[test]
fn bytes_that_arrive_with_the_connection_are_read() {
    let (mut world, host, _) = pending();
    host.state().unconnected = None;
    host.sends(b"first");
    let mut both = WRITABLE;
    both.readable = true;
    host.state().interruptions = 1;
    world.event(host.fd, both);
    assert_eq!(world.ops(), [Op::Response, Op::ReadWrite]);
}

#[test]
fn a_stream_that_cannot_be_connected_causes_one_rst() {
    for late in [true, false] {
        let (mut world, host) = if late {
            let (world, host, _) = pending();
            (world, host)
        } else {
            let mut world = World::new();
            let host = world.host();
            (world, host)
        };
        host.state().unconnected = Some(ErrorKind::ConnectionRefused);
        if late {
            world.event(host.fd, WRITABLE);
        } else {
            world.answer(Ok(&host));
            world.guest_sends(&header(Op::Request, 4000, 52), b"");
        }
        assert_eq!(world.ops(), [Op::Reset]);
        assert!(host.state().closed);
        assert_eq!(world.muxer.counters().refused_by_backend, 1);
        assert_eq!(world.muxer.connections().count(), 0);
    }
}

#[test]
fn a_hang_up_before_the_connection_is_a_refusal() {
    let (mut world, host, _) = pending();
    let mut hangup = WRITABLE;
    hangup.hangup = true;
    world.event(host.fd, hangup);
    assert_eq!(world.ops(), [Op::Reset]);
    assert!(host.state().closed);
}

#[test]
fn a_stream_that_is_never_connected_is_given_up_in_time() {
    let (mut world, host, _) = pending();
    assert_eq!(world.due(), Duration::from_secs(2));
    world.pass(world.due());
    assert_eq!(world.ops(), [Op::Reset]);
    assert!(host.state().closed);
    assert_eq!(world.ended(Ending::TimedOut), 1);
}

#[test]
fn a_guest_that_gives_up_closes_the_stream() {
    let (mut world, host, request) = pending();
    world.guest_sends(&op(Op::Reset, &request), b"");
    assert!(host.state().closed);
    assert_eq!(world.ops(), []);
}

#[test]
fn a_busy_host_is_asked_again_and_connects_later() {
    let mut world = World::new();
    let host = world.host();
    host.state().unconnected = Some(ErrorKind::WouldBlock);
    world.answer(Err(ErrorKind::WouldBlock));
    world.answer(Ok(&host));
    world.guest_sends(&header(Op::Request, 4000, 52), b"");
    world.pass(world.due());
    assert!(host.state().made);
    assert!(
        world.due() > Duration::from_secs(1),
        "the backend is not asked again"
    );
    host.state().unconnected = None;
    world.event(host.fd, WRITABLE);
    assert_eq!(world.ops(), [Op::Response]);
}

#[test]
fn without_a_descriptor_a_timer_checks_the_stream() {
    let mut world = World::new();
    let host = world.host();
    host.state().unconnected = Some(ErrorKind::WouldBlock);
    host.state().write_fd = Some(host.fd + 500);
    host.state().write_fd_failures = 1;
    world.answer(Ok(&host));
    world.guest_sends(&header(Op::Request, 4000, 52), b"");
    world.pass(world.due());
    host.state().unconnected = None;
    world.event(host.fd + 500, WRITABLE);
    assert_eq!(world.ops(), [Op::Response]);
}
