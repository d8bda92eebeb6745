// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Bytes both ways, credit and backpressure.

use std::time::Duration;

use vsock_proto::{
    Body, Config, Confirmation, Credit, Ending, Interest, Phase, Progress, SocketType, Transmit,
    Violation,
};

use crate::rig::{BOTH, End, GUEST, RECEIVE, RW, Rig, SEND, buf_alloc, limits, pattern, room};

#[test]
fn t19_a_buffer_without_room_gets_other_packets_but_no_grant() {
    let mut rig = Rig::connected();
    rig.host_sends(b"data");
    assert!(rig.transmit(0).is_none());
    assert_eq!(
        rig.host.reads, 0,
        "a read into an empty buffer looks like the end"
    );
    rig.guest(Body::CreditRequest);
    assert_eq!(rig.transmit(0).unwrap().0.body, Body::CreditUpdate);
    assert_eq!(rig.drain_bytes(), b"data");
}

#[test]
fn t50_ten_mebibytes_pass_through_a_window_of_four_kibibytes() {
    let mut rig = Rig::connected_to(Config::default(), room(4096));
    let sent = pattern(10 << 20);
    rig.host_sends(&sent);
    let mut got = Vec::new();
    while got.len() < sent.len() {
        let mut in_flight = 0;
        while let Some((packet, bytes)) = rig.transmit(1000) {
            if packet.body == RW {
                in_flight += bytes.len();
            }
            got.extend(bytes);
        }
        assert!((1..=4096).contains(&in_flight), "{in_flight} in flight");
        rig.guest_reads(in_flight as u32);
    }
    assert!(got == sent, "the bytes differ");
}

#[test]
fn t51_credit_comes_with_every_packet() {
    let answers = [Body::CreditUpdate, Body::CreditRequest, Body::Response];
    for body in [RW, SEND].into_iter().chain(answers) {
        let mut rig = Rig::connected();
        rig.host_sends(&pattern(100_000));
        rig.drain();
        assert_eq!(rig.conn.in_flight(), 65_536);
        rig.guest.fwd_cnt = 65_536;
        rig.guest(body);
        assert_eq!(rig.conn.in_flight(), 0, "{body:?}");
        assert!(rig.conn.wants_transmit());
    }
}

#[test]
fn t51_credit_counts_before_the_packet_is_acted_on() {
    let mut rig = Rig::connected();
    rig.host_sends(&pattern(65_536));
    rig.drain();
    // The packet that opens the window also ends the guest's sending.
    rig.guest.fwd_cnt = 65_536;
    rig.guest(SEND);
    rig.host_sends(b"reply");
    assert_eq!(rig.drain_bytes(), b"reply");
}

#[test]
fn t52_a_credit_request_gets_one_update_even_after_the_host_has_ended_or_closed() {
    let ends: [fn(&mut Rig); 3] = [|_| {}, |rig| rig.host_ends(End::Ended), Rig::host_closes];
    for (end, told) in ends.into_iter().zip([None, Some(SEND), Some(BOTH)]) {
        let mut rig = Rig::connected();
        end(&mut rig);
        assert_eq!(rig.drain().last().copied(), told);
        rig.guest(Body::CreditRequest);
        rig.guest(Body::CreditRequest);
        assert_eq!(rig.drain(), [Body::CreditUpdate]);
    }
}

/// A guest whose kernel limits the bytes in flight to its own buffer, and never requests credit.
#[test]
fn t53_a_guest_that_never_asks_does_not_stall() {
    for (ours, theirs) in [
        (8 << 20, 256 * 1024),
        (512 * 1024, 256 * 1024),
        (256 * 1024, 16 * 1024),
        (64 * 1024, 128),
    ] {
        let mut rig = Rig::connected_to(buf_alloc(ours), room(theirs));
        let window = theirs.min(ours);
        let (mut sent, mut known) = (0_u32, 0_u32);
        let total = 4 * window;
        while sent < total {
            let len = (window - (sent - known)).min(total - sent).min(1000);
            assert!(len > 0, "the guest is stuck at {sent} of {total}");
            rig.data(&vec![0; len as usize]);
            sent += len;
            while let Some((packet, _)) = rig.transmit(4096) {
                known = packet.credit.fwd_cnt;
            }
        }
        assert_eq!(rig.host.got.len(), total as usize);
    }
}

#[test]
fn t53_updates_are_few() {
    let mut rig = Rig::connected();
    rig.guest.buf_alloc = 256 * 1024;
    let mut updates = 0;
    for _ in 0..64 {
        rig.data(&[0; 16_384]);
        updates += rig.drain().len();
    }
    assert_eq!(updates, 8, "one for each half of the window");
}

#[test]
fn t54_any_packet_carries_a_pending_update() {
    let mut rig = Rig::connected();
    rig.data(&[0; 100]);
    rig.guest(Body::CreditRequest);
    rig.host_sends(b"reply");
    let (reply, bytes) = rig.transmit(4096).unwrap();
    assert_eq!((reply.body, reply.credit.fwd_cnt), (RW, 100));
    assert_eq!(bytes, b"reply");
    assert_eq!(rig.next(), None, "nothing is left to report");
}

#[test]
fn t54_a_pending_update_survives_an_empty_read() {
    let mut rig = Rig::connected();
    rig.guest(Body::CreditRequest);
    rig.conn.on_host_readable(rig.now);
    assert_eq!(rig.drain(), [Body::CreditUpdate]);
}

#[test]
fn t55_fwd_cnt_counts_bytes_passed_to_the_host() {
    let mut rig = Rig::connected();
    rig.host.space = 30;
    rig.data(&[1; 100]);
    let fwd_cnt = |rig: &mut Rig| {
        rig.guest(Body::CreditRequest);
        rig.transmit(0).unwrap().0.credit.fwd_cnt
    };
    assert_eq!(fwd_cnt(&mut rig), 30, "received bytes must not count");
    rig.host_takes(25);
    assert_eq!(fwd_cnt(&mut rig), 55, "a partial flush counts");
    rig.host_takes(1000);
    assert_eq!(fwd_cnt(&mut rig), 100);
}

#[test]
fn t56_discarded_bytes_are_credited() {
    let mut rig = Rig::connected();
    rig.host.space = 0;
    rig.data(&[1; 100]);
    rig.host.deaf = true;
    rig.flush();
    // The guest does not know yet that the host has stopped reading.
    rig.data(&[1; 50]);
    let (shutdown, _) = rig.transmit(0).unwrap();
    assert_eq!((shutdown.body, shutdown.credit.fwd_cnt), (RECEIVE, 150));
    assert_eq!(rig.conn.memory(), 0);
}

#[test]
fn t57_without_credit_the_host_is_not_watched_and_the_guest_is_asked_once() {
    let mut rig = Rig::connected();
    assert_eq!(rig.conn.interest(), Interest::READ);
    rig.host_sends(&pattern(70_000));
    let packets = rig.drain();
    assert_eq!(packets.last(), Some(&Body::CreditRequest));
    assert_eq!(packets.iter().filter(|body| **body == RW).count(), 17);
    assert_eq!(rig.conn.interest(), Interest::NONE);
    let reads = rig.host.reads;
    for _ in 0..10 {
        rig.conn.on_host_readable(rig.now);
        assert!(!rig.conn.wants_transmit());
        assert_eq!(rig.drain(), []);
    }
    assert_eq!(rig.host.reads, reads);
    // A packet that brings no credit changes nothing; the one that does resumes.
    rig.guest(Body::CreditUpdate);
    assert!(!rig.conn.wants_transmit());
    rig.guest_reads(65_536);
    assert!(rig.conn.wants_transmit());
    assert_eq!(rig.drain_bytes().len(), 70_000 - 65_536);
    assert_eq!(rig.conn.interest(), Interest::READ);
}

#[test]
fn t58_a_guest_that_overruns_our_buffer_is_reset() {
    let mut rig = Rig::connected_with(buf_alloc(1000));
    rig.host.space = 0;
    rig.data(&[1; 1000]);
    let violation = rig.try_guest(RW, &[1]).unwrap_err();
    assert!(matches!(violation, Violation::CreditOverrun { .. }));
    assert!(rig.host.is_closed());
    assert_eq!(rig.conn.memory(), 0);
    assert_eq!(rig.drain(), [Body::Reset]);
    assert_eq!(rig.conn.ending(), Some(Ending::Violated));
}

#[test]
fn t49_a_guest_that_acknowledges_unsent_bytes_is_reset() {
    let mut rig = Rig::connected();
    rig.guest.fwd_cnt = 1;
    let violation = rig.try_guest(Body::CreditUpdate, &[]).unwrap_err();
    let (fwd_cnt, sent) = (1, 0);
    assert_eq!(violation, Violation::ForwardedUnsent { fwd_cnt, sent });
    assert_eq!(rig.drain(), [Body::Reset]);
}

#[test]
fn t60_an_empty_payload_has_no_effect_in_any_state() {
    let accepting: fn() -> Rig = || Rig::accepting(Config::default());
    let ways: [(_, fn(&mut Rig), _); 5] = [
        (Rig::connected as fn() -> Rig, |_| {}, Phase::Connected),
        (Rig::connected, |rig| rig.guest(SEND), Phase::Connected),
        // The host has closed, and the guest's RST is awaited.
        (Rig::connected, closes, Phase::Lingering),
        (accepting, |_| {}, Phase::Accepting),
        (accepting, accepts, Phase::Responding),
    ];
    for (begin, prepare, phase) in ways {
        let (mut rig, mut without) = (begin(), begin());
        prepare(&mut rig);
        prepare(&mut without);
        rig.data(b"");
        assert_eq!(rig.conn.phase(), phase);
        assert_eq!(rig.host.writes, 0);
        assert_eq!(rig.host.actions, without.host.actions);
        // The connection continues as if the packet had not arrived.
        let told = [&mut rig, &mut without].map(|rig| {
            accepts(rig);
            let control = rig.drain();
            rig.host_sends(b"still here");
            (control, rig.drain_bytes(), rig.conn.phase())
        });
        assert_eq!(told[0], told[1]);
        if phase != Phase::Lingering {
            assert_eq!(told[0].1, b"still here");
        }
    }
    let mut rig = Rig::connected();
    rig.data(b"");
    rig.data(b"x");
    assert_eq!(rig.host.got, b"x");
}

fn closes(rig: &mut Rig) {
    rig.host_closes();
    rig.drain();
}

fn accepts(rig: &mut Rig) {
    rig.conn.on_host_connected(rig.now);
}

#[test]
fn t60_an_empty_payload_does_not_answer_our_request() {
    for sent in [false, true] {
        let mut rig = Rig::requesting(Config::default(), Confirmation::OutOfBand);
        if sent {
            assert_eq!(rig.drain(), [Body::Request]);
        }
        let violation = rig.try_guest(RW, b"").unwrap_err();
        assert_eq!(violation, Violation::DataTooEarly);
        assert_eq!(rig.drain(), [Body::Reset]);
    }
}

#[test]
fn t61_connections_survive_the_wrap_of_their_counters() {
    let start = u32::MAX - 100_000;
    let mut guest = GUEST;
    guest.fwd_cnt = start;
    let mut rig = Rig::accepting_from(Config::default(), SocketType::Stream, guest);
    rig.conn = rig.conn.with_fwd_cnt(start);
    let mut rig = rig.establish();
    let bytes = pattern(300_000);
    rig.host_sends(&bytes);
    let mut to_guest = Vec::new();
    let mut known = start;
    let mut sent = 0_usize;
    while to_guest.len() < bytes.len() || sent < bytes.len() {
        let credit = 256 * 1024 - (start.wrapping_add(sent as u32)).wrapping_sub(known) as usize;
        let len = credit.min(bytes.len() - sent).min(10_000);
        rig.host.space = 7000;
        rig.data(&bytes[sent..sent + len]);
        sent += len;
        rig.host_takes(3000);
        while let Some((packet, payload)) = rig.transmit(4096) {
            rig.guest.fwd_cnt = rig.guest.fwd_cnt.wrapping_add(packet.len);
            known = packet.credit.fwd_cnt;
            to_guest.extend(payload);
        }
        rig.guest(Body::CreditRequest);
    }
    rig.host_takes(usize::MAX);
    assert!(to_guest == bytes && rig.host.got == bytes, "bytes differ");
    assert!(rig.guest.fwd_cnt < start, "the counters have wrapped");
}

#[test]
fn t64_the_rest_of_a_short_write_is_kept() {
    let mut rig = Rig::connected();
    let bytes = pattern(100_000);
    rig.host.space = 1;
    for piece in bytes.chunks(9000) {
        rig.data(piece);
    }
    while rig.host.got.len() < bytes.len() {
        rig.host_takes(777);
    }
    assert!(rig.host.got == bytes, "bytes differ");
}

#[test]
fn a_stream_that_accepts_no_bytes_is_not_retried_indefinitely() {
    let mut rig = Rig::connected();
    rig.host.space = 0;
    rig.data(b"abc");
    let mut asked = 0;
    rig.conn.flush(rig.now, |_| {
        asked += 1;
        Progress::Done(0)
    });
    assert_eq!(asked, 1);
    assert_eq!(rig.conn.waiting(), 3);
}

#[test]
fn t65_writability_is_watched_only_while_bytes_wait() {
    let mut rig = Rig::connected();
    assert!(!rig.conn.interest().write);
    rig.host.space = 1;
    rig.data(b"abc");
    assert!(rig.conn.interest().write);
    rig.host_takes(1);
    assert!(rig.conn.interest().write, "not all was taken");
    rig.host_takes(1);
    assert!(!rig.conn.interest().write);
}

#[test]
fn t67_spurious_readiness_has_no_effect() {
    let mut rig = Rig::connected();
    for _ in 0..3 {
        rig.conn.on_host_readable(rig.now);
        assert_eq!(rig.drain(), [], "no packet without payload");
        rig.flush();
    }
    assert_eq!(rig.host.writes, 0);
    assert_eq!(rig.conn.interest(), Interest::READ);
}

#[test]
fn t69_a_stream_known_to_be_readable_is_not_watched() {
    let mut rig = Rig::connected();
    rig.host_sends(b"waits for a buffer of the guest");
    assert!(rig.conn.wants_transmit());
    assert!(!rig.conn.interest().read);
    rig.drain();
    assert!(rig.conn.interest().read);
}

#[test]
fn t72_a_connection_is_scheduled_until_its_stream_is_empty() {
    let mut rig = Rig::connected();
    rig.host_sends(&pattern(10_000));
    for _ in 0..3 {
        assert!(rig.conn.wants_transmit());
        assert_eq!(rig.next(), Some(RW));
    }
    assert!(rig.conn.wants_transmit(), "it has not been read empty yet");
    assert_eq!(rig.next(), None);
    assert!(!rig.conn.wants_transmit());
}

#[test]
fn t74_no_flood_of_packets_exceeds_the_bound_of_pending_replies() {
    let mut rig = Rig::connected();
    for _ in 0..10_000 {
        rig.guest(Body::CreditRequest);
        rig.guest(Body::Response);
        rig.data(b"");
    }
    assert_eq!(rig.drain(), [Body::CreditUpdate]);
}

#[test]
fn t77_t78_a_host_that_does_not_read_costs_no_more_than_the_window() {
    let mut rig = Rig::connected_with(buf_alloc(32 * 1024));
    rig.host.space = 0;
    let bytes = pattern(64 * 1024);
    for piece in bytes[..32 * 1024].chunks(1024) {
        rig.data(piece);
    }
    for _ in 0..100 {
        rig.pass(Duration::from_secs(60));
        rig.guest(Body::CreditRequest);
        let (update, _) = rig.transmit(0).unwrap();
        assert_eq!(update.credit.fwd_cnt, 0, "the guest has to wait");
    }
    assert!(rig.conn.memory() <= 32 * 1024 + 32);
    rig.host_takes(usize::MAX);
    rig.data(&bytes[32 * 1024..]);
    assert!(rig.host.got == bytes, "bytes differ");
    assert_eq!(rig.conn.memory(), 0);
}

#[test]
fn a_dropped_grant_has_no_effect() {
    let mut rig = Rig::connected();
    rig.host_sends(b"abc");
    for _ in 0..3 {
        let next = rig.conn.poll_transmit(rig.now, 10);
        assert!(matches!(next, Some(Transmit::Data(_))));
    }
    assert_eq!(rig.drain_bytes(), b"abc");
}

#[test]
fn one_read_may_fill_several_buffers() {
    let mut rig = Rig::connected();
    rig.conn.on_host_readable(rig.now);
    let Some(Transmit::Data(mut grant)) = rig.conn.poll_transmit(rig.now, 4052) else {
        panic!("no grant");
    };
    assert_eq!(grant.bytes(), 65_536);
    assert_eq!(grant.packets(), 64);
    let packets = [grant.sent(4052), grant.sent(4052), grant.sent(100)];
    assert_eq!(packets.map(|packet| packet.len), [4052, 4052, 100]);
    assert_eq!(grant.bytes(), 65_536 - 8204);
    grant.finish(Progress::Done(0));
    assert!(rig.conn.wants_transmit(), "the stream may have more");
}

#[test]
fn one_packet_has_no_more_than_its_maximum() {
    let mut rig = Rig::connected_with(limits(|limits| limits.max_payload(1000)));
    rig.host_sends(&pattern(2500));
    let lens: Vec<_> = std::iter::from_fn(|| rig.transmit(4096))
        .map(|(packet, _)| packet.len)
        .collect();
    assert_eq!(lens, [1000, 1000, 500]);
}

#[test]
fn a_guest_without_a_buffer_gets_no_packet() {
    let mut rig = Rig::connected_to(Config::default(), Credit::default());
    rig.host_sends(b"x");
    assert_eq!(rig.drain(), [Body::CreditRequest]);
    rig.guest.buf_alloc = 1;
    rig.guest(Body::CreditUpdate);
    assert_eq!(rig.drain_bytes(), b"x");
}
