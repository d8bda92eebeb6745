// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A guest's queue has places for packets, and small packets can fill it before their bytes do.

use vsock_proto::{Body, Config, Interest};

use crate::rig::{RW, Rig, pattern, room};

/// One-byte packets to a guest whose kernel counts only bytes: it has read everything, but sees no
/// reason to report it.
#[test]
fn t59_a_guest_that_reads_small_packets_without_updates_is_asked_for_credit() {
    let mut rig = Rig::connected();
    let mut got = 0_u32;
    for _ in 0..1000 {
        rig.host_sends(b"x");
        for body in rig.drain() {
            match body {
                RW => got += 1,
                Body::CreditRequest => {
                    rig.guest.fwd_cnt = got;
                    rig.guest(Body::CreditUpdate);
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(got, 1000);
}

#[test]
fn t59_a_guest_that_does_not_read_gets_no_more_packets_than_it_can_queue() {
    let mut rig = Rig::connected();
    let mut packets = 0;
    for _ in 0..1000 {
        rig.host_sends(b"x");
        packets += rig.drain().iter().filter(|body| **body == RW).count();
    }
    // A buffer of 64 KiB, in which each packet is assumed to cost 1 KiB.
    assert_eq!(packets, 64);
    assert_eq!(rig.conn.interest(), Interest::NONE);
}

#[test]
fn t59_t128_while_packets_block_requests_and_packets_become_rarer() {
    let mut rig = blocked();
    let mut waits = Vec::new();
    for sent in 1..10 {
        rig.host_sends(b"yyy");
        assert_eq!(rig.drain(), []);
        let before = rig.now;
        rig.pass_until_deadline();
        waits.push(rig.now.since(before).as_millis());
        assert_eq!(rig.next(), Some(Body::CreditRequest));
        assert_eq!(rig.drain_bytes(), b"yyy", "in one packet");
        assert_eq!(rig.conn.in_flight(), 64 + 3 * sent);
        // The answer contains nothing new, so it is no reason for another packet.
        rig.guest(Body::CreditUpdate);
        assert_eq!(rig.drain(), []);
    }
    assert_eq!(waits, [20, 40, 80, 160, 320, 640, 1280, 1280, 1280]);
    rig.host_sends(b"z");
    rig.guest_reads(64 + 27);
    assert_eq!(rig.conn.deadline(), None);
    assert_eq!(rig.drain(), [RW], "data flows as usual");
}

/// A buffer of 64 KiB with the maximum number of packets in flight, each of one byte.
fn blocked() -> Rig {
    let mut rig = Rig::connected();
    for _ in 0..64 {
        rig.host_sends(b"x");
        rig.drain();
    }
    rig
}

#[test]
fn t128_bytes_that_waited_for_one_pause_wait_for_no_other() {
    let mut rig = blocked();
    rig.host_sends(b"1");
    rig.pass_until_deadline();
    // The host's stream was not ready after all.
    rig.host.sends.clear();
    assert_eq!(rig.drain(), [Body::CreditRequest]);
    assert_eq!(rig.conn.deadline(), None, "there is nothing to ask for");
    assert!(rig.conn.interest().read);
    rig.host_sends(b"2");
    assert_eq!(rig.drain_bytes(), b"2");
    assert!(!rig.conn.interest().read);
}

#[test]
fn t128_packets_large_enough_for_their_slot_do_not_wait() {
    let mut rig = blocked();
    rig.host_sends(&pattern(100_000));
    rig.pass_until_deadline();
    assert_eq!(rig.drain_bytes().len(), 65_536 - 64, "until bytes run out");
    rig.guest_reads(65_536);
    assert_eq!(rig.drain_bytes().len(), 100_000 - 65_472);
}

/// A kernel that merges only small packets needs a place in its queue for each of these.
#[test]
fn t128_packets_are_small_when_no_slot_is_left() {
    let mut rig = blocked();
    for times in 0..100 {
        rig.host_sends(&pattern(300));
        rig.pass_until_deadline();
        assert_eq!(rig.next(), Some(Body::CreditRequest));
        let packets = std::iter::from_fn(|| rig.transmit(4052));
        let lens: Vec<_> = packets.map(|(packet, _)| packet.len).collect();
        // 64 and 24 of the 102 places in the guest's queue are taken.
        if times < 24 {
            assert_eq!(lens, [300]);
        } else {
            assert_eq!(lens, [128, 128, 44], "after {times}");
        }
    }
}

#[test]
fn t128_a_guest_without_a_free_slot_is_asked_and_gets_no_packet() {
    for buf_alloc in [1024, 1279, 1280] {
        let mut rig = Rig::connected_to(Config::default(), room(buf_alloc));
        rig.host_sends(b"x");
        rig.drain();
        rig.host_sends(b"y");
        for _ in 0..10 {
            rig.pass_until_deadline();
            assert_eq!(rig.next(), Some(Body::CreditRequest));
            let extra = rig.drain_bytes();
            if buf_alloc == 1280 {
                assert_eq!(extra, b"y");
                break;
            }
            assert_eq!(extra, b"");
        }
    }
}

/// The answer to the first request, which was made because of the number of packets, does not cover
/// what was read since.
#[test]
fn t57_a_guest_asked_for_packets_is_asked_again_when_bytes_run_out() {
    let mut rig = Rig::connected();
    for _ in 0..33 {
        rig.host_sends(b"x");
        rig.drain();
    }
    rig.guest(Body::CreditUpdate);
    rig.host_sends(&pattern(70_000));
    let packets = rig.drain();
    let asked = packets.iter().filter(|body| **body == Body::CreditRequest);
    assert_eq!(asked.count(), 1);
    assert_eq!(rig.conn.in_flight(), 65_536);
}

#[test]
fn t59_no_request_is_sent_while_bytes_block() {
    let mut rig = Rig::connected();
    rig.host_sends(&pattern(100_000));
    rig.drain();
    assert_eq!(rig.conn.deadline(), None);
}
