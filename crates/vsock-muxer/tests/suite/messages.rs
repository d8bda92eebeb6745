// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Seqpacket connections: complete messages between guest and streams.

use std::io::ErrorKind;
use std::time::Duration;

use vsock_proto::{Config, Ending, Header, Op, SocketTypes};

use crate::stream::{After, Host};
use crate::world::{
    HANGUP, READABLE, Scripted, WRITABLE, World, header, op, reply, seqpacket, shutdown, with,
};

const EOM: u32 = 1;
const EOR: u32 = 3;

/// A packet of the guest on a seqpacket socket.
fn packet(op: Op, flags: u32) -> Header {
    with(seqpacket(header(op, 1, 52)), |h| h.flags = flags)
}

fn message_host(world: &mut World) -> Host {
    Host::of_messages(world.host().fd)
}

/// Connects a guest with a buffer of this many bytes to a stream of messages.
fn connected(world: &mut World, buf_alloc: u32) -> Host {
    world.script().seqpacket = true;
    let host = message_host(world);
    world.answer(Ok(&host));
    let request = with(packet(Op::Request, 0), |h| h.buf_alloc = buf_alloc);
    world.guest_sends(&request, b"");
    assert_eq!(world.ops(), [Op::Response]);
    let asked_from = world.script().asked_from.clone();
    assert_eq!(asked_from[0].0.to_string(), "3:1");
    assert_eq!(asked_from[0].1.to_string(), "2:52");
    host
}

/// Like [`world`], but packets have no overhead in the guest, so that its buffers can be small.
fn frugal(buf_alloc: u32) -> (World, Host) {
    let mut world = World::with(Config::builder().packet_overhead(0).build().unwrap());
    let host = connected(&mut world, buf_alloc);
    (world, host)
}

/// A client of messages at the backend that has sent these.
fn client(world: &mut World, messages: &[&[u8]]) -> Host {
    let host = message_host(world);
    for message in messages {
        host.sends_message(message, false);
    }
    world.comes(&host);
    host
}

/// A world with one such connection.
fn world() -> (World, Host) {
    let mut world = World::new();
    let host = connected(&mut world, 64 * 1024);
    (world, host)
}

/// A packet that reports this credit of the guest.
fn credit(buf_alloc: u32, fwd_cnt: u32) -> Header {
    with(packet(Op::CreditUpdate, 0), |h| {
        (h.buf_alloc, h.fwd_cnt) = (buf_alloc, fwd_cnt);
    })
}

/// Returns the lengths and flags of the packets with payload in buffers with this room.
fn pieces(world: &mut World, rooms: &[usize]) -> Vec<(usize, u32)> {
    world.guest.rooms.extend(rooms);
    world.transmit(usize::MAX);
    world.guest.rooms.clear();
    let packets = world.guest.packets.drain(..);
    packets
        .filter(|(header, _)| header.op == u16::from(Op::ReadWrite))
        .map(|(header, payload)| {
            assert_eq!(header.socket_type, 2);
            (payload.len(), header.flags)
        })
        .collect()
}

#[test]
fn t111_packets_of_the_guest_become_one_message() {
    let (mut world, host) = world();
    world.guest_sends(&packet(Op::ReadWrite, 0), b"one ");
    world.guest_sends(&packet(Op::ReadWrite, 0), b"whole ");
    assert_eq!(host.got_messages(), []);
    world.guest_sends(&packet(Op::ReadWrite, EOM), b"message");
    // Immediately, without an event in between.
    let whole = (b"one whole message".to_vec(), false);
    assert_eq!(host.got_messages(), [whole]);
    assert_eq!(world.watch_of(&host), Some((true, false)));
}

#[test]
fn t111_records_and_empty_messages_pass_to_the_host() {
    let (mut world, host) = world();
    host.state().interruptions = 1;
    world.guest_sends(&packet(Op::ReadWrite, EOR), b"record");
    world.guest_sends(&packet(Op::ReadWrite, EOM), b"");
    let expected = [(b"record".to_vec(), true), (vec![], false)];
    assert_eq!(host.got_messages(), expected);
}

#[test]
fn t111_a_message_without_room_waits_whole() {
    let (mut world, host) = world();
    host.state().space = 6;
    world.guest_sends(&packet(Op::ReadWrite, EOM), b"message");
    world.guest_sends(&packet(Op::ReadWrite, EOM), b"next");
    assert_eq!(host.got_messages(), [], "the next may not overtake it");
    assert_eq!(world.watch_of(&host), Some((true, true)));
    host.state().space = 100;
    world.event(host.fd, WRITABLE);
    let got = [(b"message".to_vec(), false), (b"next".to_vec(), false)];
    assert_eq!(host.got_messages(), got);
}

#[test]
fn t72_many_small_messages_do_not_keep_others_waiting() {
    let (mut world, host) = world();
    host.state().space = 0;
    for number in 0..1000_u16 {
        world.guest_sends(&packet(Op::ReadWrite, EOM), &number.to_le_bytes());
    }
    host.state().space = usize::MAX;
    world.event(host.fd, WRITABLE);
    let mut got = host.got_messages();
    assert!((1..=256).contains(&got.len()), "{} in one turn", got.len());
    // No edge reports this, because the descriptor is as writable as before.
    while world.muxer.deadline().is_some_and(|at| at <= world.now) {
        world.pass(Duration::ZERO);
    }
    got.extend(host.got_messages());
    let numbers = got.iter().map(|(message, _)| message.clone());
    assert!(numbers.eq((0..1000_u16).map(|number| number.to_le_bytes().to_vec())));
}

#[test]
fn t111_a_message_that_the_stream_never_takes_ends_the_connection() {
    for pieces in [&[&b"0123456"[..]][..], &[b"0123", b"456"]] {
        let (mut world, host) = world();
        host.state().longest = 6;
        for (at, piece) in pieces.iter().enumerate() {
            let flags = if at + 1 == pieces.len() { EOM } else { 0 };
            world.guest_sends(&packet(Op::ReadWrite, flags), piece);
        }
        assert_eq!(world.ops(), [Op::Reset]);
        assert!(host.state().closed);
        assert_eq!(host.got_messages(), []);
        assert_eq!(world.ended(Ending::MessageTooLong), 1);
    }
}

#[test]
fn t111_only_the_last_packet_of_a_message_is_marked() {
    let (mut world, host) = world();
    host.sends_message(&[7; 250], false);
    host.sends_message(&[8; 100], true);
    host.sends_message(b"", false);
    world.event(host.fd, READABLE);
    let got = pieces(&mut world, &[100; 9]);
    assert_eq!(got, [(100, 0), (100, 0), (50, EOM), (100, EOR), (0, EOM)]);
}

#[test]
fn t111_a_message_waits_for_credit_and_no_other_is_read_meanwhile() {
    let (mut world, host) = frugal(300);
    host.sends_message(&[7; 200], false);
    host.sends_message(&[8; 250], false);
    host.sends_message(&[9; 1], false);
    world.event(host.fd, READABLE);
    assert_eq!(pieces(&mut world, &[4096; 9]), [(200, EOM), (100, 0)]);
    assert_eq!(host.state().messages.as_ref().unwrap().0.len(), 1);
    world.guest_sends(&credit(300, 200), b"");
    assert_eq!(pieces(&mut world, &[4096; 9]), [(150, EOM), (1, EOM)]);
}

#[test]
fn t111_a_message_waits_for_buffers() {
    let (mut world, host) = world();
    host.sends_message(&[7; 250], false);
    world.event(host.fd, READABLE);
    assert_eq!(pieces(&mut world, &[100]), [(100, 0)]);
    assert_eq!(
        pieces(&mut world, &[0]),
        [],
        "without room there is no packet"
    );
    assert_eq!(pieces(&mut world, &[1]), [(1, 0)]);
    assert_eq!(pieces(&mut world, &[4096]), [(149, EOM)]);
}

#[test]
fn t111_a_message_is_as_long_as_the_guest_can_hold_or_ends_the_connection() {
    for (len, passes) in [(300, true), (301, false)] {
        let (mut world, host) = frugal(300);
        host.sends_message(&vec![7; len], false);
        world.event(host.fd, READABLE);
        if passes {
            assert_eq!(pieces(&mut world, &[4096]), [(len, EOM)]);
        } else {
            assert_eq!(world.ops(), [Op::Reset], "and no byte of the message");
            assert_eq!(world.ended(Ending::MessageTooLong), 1);
        }
    }
}

#[test]
fn t111_a_message_over_the_limit_ends_the_connection() {
    let mut world = World::limited(|limits| limits.max_message(100));
    let host = connected(&mut world, 64 * 1024);
    host.sends_message(&[7; 100], false);
    host.sends_message(&[7; 101], false);
    world.event(host.fd, READABLE);
    assert_eq!(pieces(&mut world, &[4096]), [(100, EOM)]);
    assert_eq!(world.ops(), [Op::Reset]);
}

#[test]
fn t111_a_guest_that_shrinks_under_a_message_is_reset() {
    let (mut world, host) = frugal(300);
    host.sends_message(&[7; 300], false);
    world.event(host.fd, READABLE);
    assert_eq!(pieces(&mut world, &[100]), [(100, 0)]);
    world.guest_sends(&credit(200, 0), b"");
    assert_eq!(world.ops(), [Op::Reset], "the rest can never be sent");
    assert!(host.state().closed);
}

#[test]
fn t72_others_have_their_turn_while_a_message_is_under_way() {
    let mut world = World::limited(|limits| limits.max_payload(1000));
    let large = connected(&mut world, 1 << 20);
    let (small, _) = world.guest_connects(2, 53);
    large.sends_message(&[7; 200_000], false);
    small.sends(b"small");
    world.event(large.fd, READABLE);
    world.event(small.fd, READABLE);
    let packets = world.receive(300);
    let at = packets
        .iter()
        .position(|(_, payload)| payload == b"small")
        .expect("the small one has its turn");
    assert!(at < 70, "{at} packets of the message came first");
    let last = packets.iter().rposition(|(header, _)| header.flags == EOM);
    assert_eq!(last, Some(200), "and the message continues after it");
}

#[test]
fn t85_the_end_comes_after_the_rest_of_a_message() {
    let (mut world, host) = frugal(300);
    host.sends_message(&[7; 200], false);
    host.sends_message(&[8; 200], false);
    host.state().after = After::End;
    world.event(host.fd, HANGUP);
    assert_eq!(pieces(&mut world, &[4096; 9]), [(200, EOM), (100, 0)]);
    world.guest_sends(&credit(300, 200), b"");
    let rest = world.receive(9);
    let [.., (last, _), (end, _)] = &rest[..] else {
        panic!("{rest:?}");
    };
    assert_eq!((last.len, last.flags), (100, EOM));
    assert_eq!((end.op, end.flags), (u16::from(Op::Shutdown), 3));
}

#[test]
fn t84_the_guests_end_comes_after_its_messages() {
    let (mut world, host) = world();
    host.state().space = 0;
    world.guest_sends(&packet(Op::ReadWrite, EOM), b"last");
    world.guest_sends(&packet(Op::ReadWrite, 0), b"half a message");
    world.guest_sends(&shutdown(&packet(Op::Shutdown, 0), 2), b"");
    assert!(!host.state().shut_write);
    host.state().space = 100;
    world.event(host.fd, WRITABLE);
    assert_eq!(host.got_messages(), [(b"last".to_vec(), false)]);
    assert!(host.state().shut_write);
}

#[test]
fn t91_a_guest_that_stops_receiving_gets_no_more_of_a_message() {
    let (mut world, host) = frugal(100);
    host.sends_message(&[7; 90], false);
    host.sends_message(&[7; 90], false);
    world.event(host.fd, READABLE);
    assert_eq!(pieces(&mut world, &[4096; 9]), [(90, EOM), (10, 0)]);
    world.guest_sends(&shutdown(&packet(Op::Shutdown, 0), 1), b"");
    world.guest_sends(&credit(100, 90), b"");
    assert_eq!(pieces(&mut world, &[4096; 9]), []);
    assert!(host.state().shut_read);
}

#[test]
fn t105_a_transport_reset_forgets_half_a_message() {
    let (mut world, host) = frugal(100);
    host.sends_message(&[7; 100], false);
    world.event(host.fd, READABLE);
    assert_eq!(pieces(&mut world, &[60]), [(60, 0)]);
    world.muxer.transport_reset(world.now);
    world.apply();
    assert!(host.state().closed);
    // With the same ports again, nothing of the old message is left.
    let host = connected(&mut world, 100);
    host.sends_message(b"new", false);
    world.event(host.fd, READABLE);
    assert_eq!(pieces(&mut world, &[4096; 9]), [(3, EOM)]);
}

#[test]
fn a_seqpacket_client_sends_its_command_in_one_message() {
    for slow in [false, true] {
        let mut world = World::new();
        let host = message_host(&mut world);
        if slow {
            world.comes(&host);
            assert_eq!(world.muxer.handshakes(), 1);
        }
        host.sends_message(b"CONNECT 9\n", false);
        host.sends_message(b"for the guest", false);
        host.state().interruptions = 1;
        if !slow {
            world.comes(&host);
        }
        world.event(host.fd, READABLE);
        let request = world.receive(1)[0].0;
        assert_eq!((request.socket_type, request.dst_port), (2, 9));
        world.guest_sends(&seqpacket(reply(&request, Op::Response)), b"");
        let answer = format!("OK {}\n", request.src_port);
        assert_eq!(host.got_messages(), [(answer.into_bytes(), false)]);
        world.event(host.fd, READABLE);
        let packets = world.receive(9);
        assert_eq!(packets[0].1, b"for the guest");
        assert_eq!(packets[0].0.flags, EOM);
    }
}

#[test]
fn t40_t43_a_message_that_is_not_a_command_is_refused() {
    let long = [b'x'; 33];
    let bad: [&[u8]; 5] = [b"", b"CONNECT 9", b"CONNECT 9\nmore", b"HELLO 9\n", &long];
    for (number, command) in bad.iter().enumerate() {
        let mut world = World::new();
        let host = client(&mut world, &[command]);
        assert!(host.state().closed, "{command:?}");
        assert_eq!(world.muxer.counters().handshakes_malformed, 1, "{number}");
        assert_eq!(world.ops(), []);
    }
}

#[test]
fn t39_a_seqpacket_client_that_leaves_is_closed() {
    for after in [After::End, After::Failure(ErrorKind::ConnectionReset)] {
        let mut world = World::new();
        let host = message_host(&mut world);
        host.state().after = after;
        world.comes(&host);
        assert!(host.state().closed);
        assert_eq!(world.muxer.counters().handshakes_abandoned, 1);
    }
}

#[test]
fn t109_without_the_feature_neither_side_gets_messages() {
    let mut world = World::asleep(Config::default());
    world.script().seqpacket = true;
    assert!(world.muxer.has_seqpacket());
    world.activate(SocketTypes::STREAM);
    world.guest_sends(&packet(Op::Request, 0), b"");
    assert_eq!(world.ops(), [Op::Reset]);
    assert_eq!(world.script().asked, [0_u32; 0]);
    let host = client(&mut world, &[b"CONNECT 9\n"]);
    assert!(host.state().closed);
}

#[test]
fn the_first_seqpacket_backend_gets_the_unassigned_ports() {
    let mut world = World::new();
    let other = Scripted::new(1);
    other.0.lock().unwrap().seqpacket = true;
    world.muxer.add_backend(Box::new(other.clone())).unwrap();
    world.apply();
    let host = message_host(&mut world);
    other.0.lock().unwrap().answers.push_back(Ok(host));
    world.guest_sends(&packet(Op::Request, 0), b"");
    assert_eq!(world.ops(), [Op::Response]);
    assert_eq!(other.0.lock().unwrap().asked, [52]);
    // A backend for certain ports gets no others, although it supports messages.
    let mut aloof = World::without_backends();
    let backend = Box::new(Scripted::clone(&other));
    aloof.muxer.add_backend_for(backend, &[52]).unwrap();
    assert!(aloof.muxer.has_seqpacket());
    let request = seqpacket(header(Op::Request, 1, 53));
    aloof.guest_sends(&request, b"");
    assert_eq!(aloof.ops(), [Op::Reset]);
    assert_eq!(other.0.lock().unwrap().asked, [52], "by the first guest");
    // A port with its own backend stays with it, whether that supports messages or not.
    world.muxer.route_port(53, world.backend_id).unwrap();
    world.guest_sends(&request, b"");
    assert_eq!(world.script().asked, [53]);
    assert_eq!(world.ops(), [Op::Reset]);
}

#[test]
fn t111_a_stream_of_the_other_type_is_refused() {
    let mut world = World::new();
    world.script().seqpacket = true;
    let (bytes, messages) = (world.host(), message_host(&mut world));
    world.answer(Ok(&bytes));
    world.guest_sends(&packet(Op::Request, 0), b"");
    assert_eq!(world.ops(), [Op::Reset]);
    world.answer(Ok(&messages));
    world.guest_sends(&header(Op::Request, 1, 52), b"");
    assert_eq!(world.ops(), [Op::Reset]);
}

#[test]
fn t28_a_seqpacket_request_replaces_the_connection_with_its_ports() {
    let (mut world, before) = world();
    let after = connected(&mut world, 64 * 1024);
    assert!(before.state().closed);
    world.guest_sends(&packet(Op::ReadWrite, EOM), b"new");
    assert_eq!(after.got_messages(), [(b"new".to_vec(), false)]);
}

#[test]
fn a_seqpacket_stream_that_fails_is_reset() {
    let (mut world, host) = world();
    host.sends_message(b"before", false);
    host.state().after = After::Failure(ErrorKind::ConnectionReset);
    world.event(host.fd, READABLE);
    assert_eq!(pieces(&mut world, &[4096]), [(6, EOM)]);
    assert_eq!(world.ops(), [Op::Reset]);
    // The same when it is written to.
    let (mut world, host) = self::world();
    host.state().write_error = Some(ErrorKind::BrokenPipe);
    world.guest_sends(&op(Op::ReadWrite, &packet(Op::ReadWrite, EOM)), b"lost");
    let packets = world.receive(9);
    assert_eq!((packets[0].0.op, packets[0].0.flags), (4, 1));
}
