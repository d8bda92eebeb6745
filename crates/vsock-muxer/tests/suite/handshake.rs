// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Host clients that request a port of the guest.

use std::io::ErrorKind;
use std::time::Duration;

use vsock_proto::Op;

use crate::stream::After;
use crate::world::{GUEST, READABLE, World, bytes, op, reply};

#[test]
fn t38_a_command_may_come_in_any_pieces() {
    let mut world = World::new();
    let host = world.client(b"CONN");
    for piece in [&b"E"[..], b"CT ", b"5", b"2"] {
        world.host_sends(&host, piece);
        assert_eq!(world.receive(1), []);
    }
    world.host_sends(&host, b"\n");
    let packets = world.receive(4);
    assert_eq!(packets.len(), 1);
    let request = packets[0].0;
    assert_eq!((request.op, request.dst_port), (Op::Request.into(), 52));
    assert_eq!(request.src_port, 1 << 30);
}

#[test]
fn t39_a_client_that_leaves_before_the_newline_is_closed() {
    let mut world = World::new();
    let host = world.client(b"CONNECT 5");
    host.state().after = After::End;
    world.event(host.fd, READABLE);
    assert!(host.state().closed);
    assert_eq!(world.watch_of(&host), None);
    assert_eq!(world.muxer.handshakes(), 0);
    assert_eq!(world.muxer.counters().handshakes_abandoned, 1);
}

#[test]
fn t41_bytes_after_the_line_reach_the_guest_first_and_once() {
    let mut world = World::new();
    let host = world.client(b"CONNECT 7\nfirst words, ");
    world.host_sends(&host, b"and a lot that comes later");
    let request = world.receive(9);
    assert_eq!(request.len(), 1, "nothing before the guest has accepted");
    world.guest_sends(&reply(&request[0].0, Op::Response), b"");
    let packets = world.receive(9);
    assert_eq!(bytes(&packets), b"first words, and a lot that comes later");
}

#[test]
fn t41_bytes_after_the_line_stay_within_credit() {
    let mut world = World::new();
    world.client(b"CONNECT 7\n0123456789");
    let request = world.receive(1)[0].0;
    let mut response = reply(&request, Op::Response);
    response.buf_alloc = 4;
    world.guest_sends(&response, b"");
    assert_eq!(bytes(&world.receive(9)), b"0123");
    response.fwd_cnt = 4;
    world.guest_sends(&op(Op::CreditUpdate, &response), b"");
    assert_eq!(bytes(&world.receive(9)), b"4567");
    response.fwd_cnt = 8;
    world.guest_sends(&op(Op::CreditUpdate, &response), b"");
    assert_eq!(bytes(&world.receive(9)), b"89");
}

#[test]
fn t42_a_silent_client_is_closed_by_a_timer() {
    let mut world = World::new();
    let host = world.client(b"");
    let deadline = world.muxer.deadline().unwrap();
    assert_eq!(deadline.since(world.now), Duration::from_secs(5));
    world.pass(Duration::from_secs(4));
    assert!(!host.state().closed);
    world.pass(Duration::from_secs(1));
    assert!(host.state().closed);
    assert_eq!(world.muxer.counters().handshakes_timed_out, 1);
    assert_eq!(world.muxer.deadline(), None);
}

#[test]
fn t42_silent_clients_are_bounded_and_do_not_shut_out_clients_that_name_a_port() {
    let mut world = World::limited(|limits| limits.max_handshakes(2));
    let clients: Vec<_> = (0..3).map(|_| world.client(b"")).collect();
    let closed: Vec<_> = clients.iter().map(|host| host.state().closed).collect();
    assert_eq!(closed, [true, false, false]);
    assert_eq!(world.muxer.handshakes(), 2);
    assert_eq!(world.muxer.counters().handshakes_at_limit, 1);

    let host = world.host();
    host.state().requested = Some(9);
    world.comes(&host);
    assert_eq!(world.ops(), [Op::Request]);
}

#[test]
fn t46_t47_the_answer_contains_the_hosts_port_and_a_refusal_sends_no_text() {
    let mut world = World::new();
    let (_, header) = world.host_connects(52);
    assert_eq!(header.dst_port, 1 << 30);
    let refused = world.client(b"CONNECT 53\n");
    assert_eq!(
        refused.state().reads,
        1,
        "the command was available: one call"
    );
    world.answers(Op::Reset);
    assert_eq!(refused.got(), b"");
    assert!(refused.state().closed && refused.state().aborted, "T34");
    let endings = world.muxer.counters().endings;
    assert_eq!(endings.of(vsock_proto::Ending::GuestRefused), 1);
}

#[test]
fn a_port_that_is_requested_out_of_band_needs_no_text() {
    let mut world = World::new();
    let host = world.host();
    host.state().requested = Some(52);
    host.sends(b"payload");
    world.comes(&host);
    world.event(host.fd, READABLE);
    let packets = world.receive(9);
    assert_eq!((packets.len(), packets[0].0.dst_port), (1, 52));
    world.guest_sends(&reply(&packets[0].0, Op::Response), b"hi");
    assert_eq!(host.state().confirmed, Some(1 << 30));
    let (guest, component) = host.state().confirmed_from.unwrap();
    assert_eq!(guest.to_string(), format!("{GUEST}:52"));
    assert_eq!(component.to_string(), format!("2:{}", 1 << 30));
    assert_eq!(host.got(), b"");
    assert_eq!(bytes(&world.receive(9)), b"payload");
}

#[test]
fn a_client_that_leaves_before_the_confirmation_causes_an_rst() {
    let mut world = World::new();
    let host = world.host();
    host.state().requested = Some(52);
    host.state().confirm_error = Some(ErrorKind::BrokenPipe);
    host.state().after = After::Failure(ErrorKind::ConnectionReset);
    world.comes(&host);
    world.answers(Op::Response);
    assert_eq!(world.ops().last(), Some(&Op::Reset));
    assert!(host.state().closed);
}

#[test]
fn t40_t43_a_line_that_is_not_a_command_or_has_no_port_is_refused() {
    let mut world = World::new();
    for line in [
        "CONNECT 4294967295\n",
        "CONNECT -1\n",
        "CONNECT\n",
        "GET /\n",
        "a line without an end that is longer than a command can be",
    ] {
        let host = world.client(line.as_bytes());
        assert!(host.state().closed, "{line:?}");
    }
    let host = world.host();
    host.state().requested = Some(u32::MAX);
    world.comes(&host);
    assert!(host.state().closed);
    assert_eq!(world.ops(), []);
    assert_eq!(world.muxer.counters().handshakes_malformed, 6);
}
