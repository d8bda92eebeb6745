// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Packets that arrive together: which are written together, and in which order.

use std::io::ErrorKind;
use std::time::Duration;

use vsock_proto::{Config, Header, Op};

use crate::stream::Host;
use crate::world::{WRITABLE, World, header, op, shutdown, with};

impl World {
    /// Passes packets of a batch that continues.
    fn batch_goes_on(&mut self, packets: &[(Header, &[u8])]) {
        for (header, payload) in packets {
            assert!(self.muxer.can_take_packet());
            let header = with(*header, |header| header.len = payload.len() as u32);
            let mut rest = *payload;
            self.muxer.on_packet_of_batch(self.now, &header, &mut rest);
            self.apply();
        }
    }

    fn batch(&mut self, packets: &[(Header, &[u8])]) {
        self.batch_goes_on(packets);
        self.end_batch();
    }

    fn end_batch(&mut self) {
        self.muxer.end_batch(self.now);
        self.apply();
    }
}

/// A connection of the guest, and the header of its packets with payload.
fn connected() -> (World, Host, Header) {
    let (world, host, request) = World::connected();
    (world, host, op(Op::ReadWrite, &request))
}

fn writes(host: &Host) -> usize {
    host.state().writes
}

#[test]
fn bytes_of_a_batch_are_written_together() {
    let (mut world, host, data) = connected();
    let changes = world.changes;
    world.batch(&[(data, b"one "), (data, b"two "), (data, b"three")]);
    assert_eq!(
        (host.got().as_slice(), writes(&host)),
        (&b"one two three"[..], 1)
    );
    assert_eq!(world.changes, changes, "the event loop has nothing to do");
    assert_eq!(world.muxer.deadline(), None);
}

#[test]
fn no_byte_waits_longer_than_its_batch() {
    let (mut world, host, data) = connected();
    for batch in 1..4 {
        world.batch_goes_on(&[(data, b"one "), (data, b"two")]);
        assert_eq!(host.got(), b"");
        world.end_batch();
        assert_eq!(host.got(), b"one two");
        world.end_batch();
        assert_eq!(writes(&host), batch);
    }
}

#[test]
fn a_batch_that_never_ends_is_written_by_a_timer() {
    let (mut world, host, data) = connected();
    for _ in 0..3 {
        world.batch_goes_on(&[(data, b"one "), (data, b"two")]);
        assert_eq!(world.due(), Duration::ZERO);
        world.pass(Duration::ZERO);
        assert_eq!(host.got(), b"one two");
        assert_eq!(world.muxer.deadline(), None);
    }
}

#[test]
fn refused_bytes_of_an_unfinished_batch_are_watched_for() {
    let (mut world, host, data) = connected();
    host.state().space = 5;
    world.batch_goes_on(&[(data, b"one "), (data, b"two")]);
    assert_eq!(world.watch_of(&host), Some((true, false)));
    world.pass(Duration::ZERO);
    assert_eq!(host.got(), b"one t");
    assert_eq!(world.watch_of(&host), Some((true, true)));
}

#[test]
fn a_stream_inside_the_process_gets_each_packet_immediately() {
    let mut world = World::new();
    let host = world.host();
    host.state().inner = true;
    world.answer(Ok(&host));
    let request = header(Op::Request, 1, 52);
    world.guest_sends(&request, b"");
    assert_eq!(world.ops(), [Op::Response]);
    let data = op(Op::ReadWrite, &request);
    world.batch_goes_on(&[(data, b"one "), (data, b"two")]);
    assert_eq!((host.got().as_slice(), writes(&host)), (&b"one two"[..], 2));
    world.end_batch();
}

#[test]
fn each_connection_of_a_batch_has_its_own_write() {
    let (mut world, one, first) = connected();
    let (other, request) = world.guest_connects(2, 52);
    let second = op(Op::ReadWrite, &request);
    world.batch(&[(first, b"a"), (second, b"x"), (first, b"b"), (second, b"y")]);
    assert_eq!((one.got().as_slice(), writes(&one)), (&b"ab"[..], 1));
    assert_eq!((other.got().as_slice(), writes(&other)), (&b"xy"[..], 1));
}

#[test]
fn an_error_ends_the_connection_that_had_it_and_no_other() {
    let (mut world, one, first) = connected();
    let (other, request) = world.guest_connects(2, 52);
    let second = op(Op::ReadWrite, &request);
    one.state().write_error = Some(ErrorKind::ConnectionReset);
    world.batch(&[(first, b"a"), (second, b"x"), (first, b"b"), (second, b"y")]);
    assert_eq!(one.got(), b"");
    assert_eq!(other.got(), b"xy");
    let packets = world.receive(9);
    let told: Vec<_> = packets.iter().map(|(header, _)| header.dst_port).collect();
    assert_eq!(told, [1], "{packets:?}");
}

#[test]
fn refused_bytes_wait_and_credit_covers_only_accepted_bytes() {
    let (mut world, host, data) = connected();
    host.state().space = 5;
    world.batch(&[(data, b"one "), (data, b"two "), (data, b"three")]);
    assert_eq!(host.got(), b"one t");
    assert_eq!(world.watch_of(&host), Some((true, true)));
    world.guest_sends(&op(Op::CreditRequest, &data), b"");
    assert_eq!(world.receive(9)[0].0.fwd_cnt, 5);
    host.state().space = 100;
    world.event(host.fd, WRITABLE);
    assert_eq!(host.got(), b"wo three");
    assert_eq!(world.watch_of(&host), Some((true, false)));
}

#[test]
fn bytes_that_join_refused_bytes_stay_in_order() {
    let (mut world, host, data) = connected();
    host.state().space = 1;
    world.batch(&[(data, b"ab"), (data, b"cd")]);
    world.batch(&[(data, b"ef"), (data, b"gh")]);
    assert_eq!(world.watch_of(&host), Some((true, true)));
    host.state().space = 100;
    world.event(host.fd, WRITABLE);
    assert_eq!(host.got(), b"abcdefgh");
}

#[test]
fn ends_come_after_what_was_sent_before_them() {
    let (mut world, host, data) = connected();
    world.batch_goes_on(&[(data, b"last"), (shutdown(&data, 2), b"")]);
    assert_eq!(host.got(), b"last");
    assert!(host.state().shut_write);
}

#[test]
fn a_reset_comes_after_what_was_sent_before_it() {
    let (mut world, host, data) = connected();
    world.batch_goes_on(&[(data, b"last"), (op(Op::Reset, &data), b"")]);
    assert_eq!(host.got(), b"last");
    assert!(host.state().closed);
    world.end_batch();
}

#[test]
fn a_connection_that_replaces_another_in_a_batch_gets_only_its_own_bytes() {
    let (mut world, old, data) = connected();
    let new = world.host();
    world.answer(Ok(&new));
    let request = op(Op::Request, &data);
    world.batch_goes_on(&[(data, b"old"), (request, b"")]);
    assert_eq!(world.ops(), [Op::Response]);
    world.batch(&[(data, b"new"), (data, b"er")]);
    assert_eq!(old.got(), b"old");
    assert_eq!(new.got(), b"newer");
}

#[test]
fn a_large_payload_is_not_copied_and_comes_after_what_is_before_it() {
    let (mut world, host, data) = connected();
    let large = [7; 4097];
    world.batch(&[(data, b"small"), (data, &large), (data, b"smaller")]);
    assert_eq!(writes(&host), 3);
    let got = host.got();
    assert_eq!(&got[..5], b"small");
    assert_eq!(&got[5..4102], &large);
    assert_eq!(&got[4102..], b"smaller");
}

#[test]
fn a_packet_sent_alone_takes_the_gathered_bytes_along() {
    let (mut world, host, data) = connected();
    world.batch_goes_on(&[(data, b"one "), (data, b"two ")]);
    world.guest_sends(&data, b"three");
    assert_eq!(host.got(), b"one two three");
    world.end_batch();
}

#[test]
fn no_more_is_gathered_than_one_write_carries() {
    let (mut world, host, data) = connected();
    let piece: &[u8] = &[7; 4096];
    world.batch_goes_on(&[(data, piece); 8]);
    assert_eq!(writes(&host), 0);
    world.batch_goes_on(&[(data, piece)]);
    assert_eq!((host.got().len(), writes(&host)), (32 * 1024, 1));
    world.end_batch();
    assert_eq!((host.got().len(), writes(&host)), (4096, 2));
}

#[test]
fn a_batch_may_exceed_the_window_as_single_packets_may() {
    let mut world = World::with(Config::builder().buf_alloc(1000).build().unwrap());
    let (host, request) = world.guest_connects(1, 52);
    let data = op(Op::ReadWrite, &request);
    let piece: &[u8] = &[7; 600];
    world.batch(&[(data, piece); 4]);
    assert_eq!(host.got().len(), 2400);
    assert!(!host.state().closed);
}

#[test]
fn a_device_that_is_reset_during_a_batch_discards_the_batch() {
    let (mut world, host, data) = connected();
    world.batch_goes_on(&[(data, b"one "), (data, b"two ")]);
    world.muxer.reset(world.now);
    world.apply();
    assert!(host.state().closed);
    world.end_batch();
    assert_eq!(world.muxer.deadline(), None);
    world
        .muxer
        .on_packet_of_batch(world.now, &header(Op::ReadWrite, 1, 52), &mut &b""[..]);
    world.end_batch();
}
