// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Bytes in both directions.

use vsock_driver::Counted;
use vsock_muxer::{Allowance, GuestBuffers, Initiator, Op, Progress};

use crate::world::{Buffers, WRITABLE, World, bytes, header, op, with};

#[test]
fn t74_bytes_pass_and_are_counted_and_a_flood_of_credit_requests_gets_one_answer() {
    let (mut world, host, request) = World::connected();
    world.guest_sends(&op(Op::ReadWrite, &request), b"ping");
    assert_eq!(host.got(), b"ping");
    world.host_sends(&host, b"pong!");
    assert_eq!(bytes(&world.receive(9)), b"pong!");
    let info = world.muxer.connections().next().unwrap();
    assert_eq!((info.bytes_from_guest, info.bytes_to_guest), (4, 5));
    assert_eq!((info.in_flight, info.waiting), (5, 0));
    assert_eq!(info.initiator, Initiator::Guest);
    // No matter how many times it asks.
    for _ in 0..10_000 {
        world.guest_sends(&op(Op::CreditRequest, &request), b"");
    }
    assert_eq!(world.ops(), [Op::CreditUpdate]);
    let counters = world.muxer.counters();
    assert_eq!((counters.bytes_from_guest, counters.bytes_to_guest), (4, 5));
    assert_eq!(counters.packets_from_guest, 10_002);
    assert_eq!(counters.packets_to_guest, 3);
    assert_eq!(counters.credit_updates_to_guest, 1);
}

#[test]
fn t63_t64_a_short_write_loses_no_byte_and_later_bytes_queue_after_it() {
    let (mut world, host, request) = World::connected();
    host.state().space = 3;
    world.guest_sends(&op(Op::ReadWrite, &request), b"abcdef");
    host.state().space = 100;
    world.guest_sends(&op(Op::ReadWrite, &request), b"ghi");
    assert_eq!(host.got(), b"abc", "nothing may overtake the backlog");
    host.state().space = 2;
    world.event(host.fd, WRITABLE);
    assert_eq!(world.watch_of(&host), Some((true, true)), "T65");
    host.state().space = 100;
    world.event(host.fd, WRITABLE);
    assert_eq!(host.got(), b"defghi");
    assert_eq!(world.watch_of(&host), Some((true, false)), "T65");
}

#[test]
fn t68_interrupted_calls_are_repeated() {
    let (mut world, host, request) = World::connected();
    host.state().space = 1;
    world.guest_sends(&op(Op::ReadWrite, &request), b"abc");
    host.state().space = 10;
    host.state().interruptions = 3;
    world.event(host.fd, WRITABLE);
    assert_eq!(host.got(), b"abc");
    let slow = world.client(b"");
    slow.state().interruptions = 2;
    world.host_sends(&slow, b"CONNECT 1\n");
    assert_eq!(world.ops(), [Op::Request]);
}

#[test]
fn t72_small_streams_are_served_despite_a_saturated_one() {
    let mut world = World::new();
    let big_window = with(header(Op::Request, 1, 52), |h| h.buf_alloc = 1 << 24);
    let busy = world.host();
    world.answer(Ok(&busy));
    world.guest_sends(&big_window, b"");
    assert_eq!(world.ops(), [Op::Response]);
    let (small, _) = world.guest_connects(2, 52);
    world.host_sends(&busy, &vec![7; 1 << 22]);
    world.receive(4);
    world.host_sends(&small, b"me too");
    let packets = world.receive(18);
    let place = packets.iter().position(|(header, _)| header.dst_port == 2);
    assert!(place.unwrap() <= 16, "after one turn of 64 KiB");
}

#[test]
fn t76_the_budget_bounds_a_call_and_the_rest_is_announced() {
    let (mut world, host, _) = World::connected();
    world.host_sends(&host, &[1; 20_000]);
    world.guest.rooms.extend([4096; 64]);
    assert!(world.transmit(8192));
    let sent: usize = world.guest.packets.iter().map(|(_, data)| data.len()).sum();
    assert_eq!(sent, 8192);
    assert!(!world.transmit(usize::MAX));
    let sent: usize = world.guest.packets.iter().map(|(_, data)| data.len()).sum();
    assert_eq!(sent, 20_000);
}

#[test]
fn t19_a_buffer_without_room_for_payload_is_neither_an_end_nor_an_endless_loop() {
    let mut world = World::new();
    let hosts: Vec<_> = (1..4).map(|port| world.guest_connects(port, 52)).collect();
    for (host, _) in &hosts {
        world.host_sends(host, b"payload");
    }
    world.guest.rooms.extend([0, 4096, 4096, 4096, 4096]);
    assert!(!world.transmit(usize::MAX));
    assert_eq!(world.guest.packets.len(), 0);
    assert!(world.muxer.wants_transmit());
    // A packet without payload uses the buffer.
    world.guest_sends(&op(Op::CreditRequest, &hosts[1].1), b"");
    world.transmit(usize::MAX);
    assert_eq!(world.guest.packets.len(), 4);
    assert!(world.guest.packets.iter().all(|(header, _)| header.op != 4));
}

#[test]
fn t19_an_rst_takes_a_small_buffer_that_the_only_connection_cannot_use() {
    let mut world = World::new();
    let (host, _) = world.guest_connects(1, 52);
    world.host_sends(&host, b"payload");
    for port in [9, 10] {
        world.guest_sends(&header(Op::ReadWrite, port, 52), b"stray");
    }
    world.guest.rooms.extend([0; 4]);
    assert!(!world.transmit(usize::MAX));
    let ops: Vec<_> = world.guest.packets.iter().map(|(h, _)| h.op).collect();
    assert_eq!(ops, [u16::from(Op::Reset); 2]);
}

#[test]
fn t73_more_than_256_connections_are_all_served() {
    let mut world = World::new();
    let hosts: Vec<_> = (0..600)
        .map(|port| world.guest_connects(port, 52).0)
        .collect();
    for host in &hosts {
        world.host_sends(host, b"x");
    }
    let mut served = std::collections::HashSet::new();
    for _ in 0..600 {
        served.extend(world.receive(1).iter().map(|(header, _)| header.dst_port));
    }
    assert_eq!(served.len(), 600);
}

/// As with a socket, a second read would return the end.
#[test]
fn a_failure_that_a_stream_reports_once_after_bytes_is_not_lost() {
    let mut buffers = Buffers::default();
    buffers.rooms.extend([4, 100, 100]);
    let allowance = Allowance {
        bytes: 100,
        packets: 9,
        packet_bytes: 6,
    };
    let mut stream = Counted::reset_after(b"some bytes");
    let filled = buffers.fill(&mut stream, allowance, &mut |len| {
        with(header(Op::ReadWrite, 1, 52), |h| h.len = len as u32)
    });
    assert_eq!(filled, Progress::Failed);
    let pieces: Vec<_> = buffers
        .packets
        .iter()
        .map(|(_, bytes)| &bytes[..])
        .collect();
    assert_eq!(pieces, [&b"some"[..], b" bytes"]);
}
