// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::collections::VecDeque;

use super::packets::PacketWindow;
use super::{CreditChange, RecvWindow, SendWindow};
use crate::{Credit, Violation};
use proptest::prelude::*;

const fn credit(buf_alloc: u32, fwd_cnt: u32) -> Credit {
    Credit { buf_alloc, fwd_cnt }
}

fn window(start: u32, buf_alloc: u32) -> SendWindow {
    let mut window = SendWindow::new(0);
    window.start(credit(buf_alloc, start));
    window
}

#[test]
fn t37_both_fields_of_the_first_packet_are_credit() {
    let window = window(5000, 4096);
    assert_eq!(window.free(), 4096);
    assert_eq!(window.in_flight(), 0);
}

#[test]
fn t48_credit_saturates_when_window_shrinks() {
    let mut window = window(0, 10_000);
    window.on_sent(9000);
    window.update(credit(1000, 500)).unwrap();
    assert_eq!(window.free(), 0);
    window.update(credit(1000, 8500)).unwrap();
    assert_eq!(window.free(), 500);
}

#[test]
fn t49_a_fwd_cnt_ahead_of_what_was_sent_is_a_violation() {
    let mut window = window(0, 4096);
    window.on_sent(100);
    let lie = window.update(credit(4096, 101));
    let (fwd_cnt, sent) = (101, 100);
    assert_eq!(lie, Err(Violation::ForwardedUnsent { fwd_cnt, sent }));
    assert_eq!(
        window.free(),
        3996,
        "a false claim must not open the window"
    );
}

#[test]
fn an_older_fwd_cnt_withdraws_no_credit() {
    let mut window = window(0, 4096);
    window.on_sent(3000);
    assert_eq!(window.update(credit(4096, 2000)), Ok(CreditChange::More));
    assert_eq!(window.update(credit(4096, 1000)), Ok(CreditChange::None));
    assert_eq!(window.in_flight(), 1000);
}

#[test]
fn credit_counts_as_new_only_if_it_allows_more() {
    let mut window = window(0, 4096);
    window.on_sent(4096);
    assert_eq!(window.update(credit(4096, 0)), Ok(CreditChange::None));
    assert_eq!(window.update(credit(8192, 0)), Ok(CreditChange::More));
    assert_eq!(window.update(credit(8192, 1)), Ok(CreditChange::More));
}

#[test]
fn a_window_beyond_any_buffer_is_capped() {
    let mut window = window(0, u32::MAX);
    assert_eq!(window.free(), i32::MAX as u32);
    window.on_sent(i32::MAX as u32);
    assert_eq!(window.free(), 0);
    let change = window.update(credit(u32::MAX, i32::MAX as u32));
    assert_eq!(change, Ok(CreditChange::More));
}

#[test]
fn t61_counters_wrap() {
    let start = u32::MAX - 1000;
    let mut window = window(start, 4096);
    window.on_sent(3000);
    assert_eq!(window.free(), 1096);
    window
        .update(credit(4096, start.wrapping_add(2500)))
        .unwrap();
    assert_eq!(window.in_flight(), 500);
    let lie = window.update(credit(4096, start.wrapping_add(3001)));
    assert!(matches!(lie, Err(Violation::ForwardedUnsent { .. })));

    let mut window = RecvWindow::new(4096, start);
    window.receive(3000).unwrap();
    window.forward(2000);
    assert_eq!(window.used(), 1000);
    assert_eq!(window.advertise().fwd_cnt, 999);
}

#[test]
fn t53_updates_are_due_when_they_return_much_and_the_peer_has_little_credit() {
    const KIB: u32 = 1024;
    #[rustfmt::skip]
    let cases = [
        // Our buffer, the bytes received and forwarded, the peer's limit, and whether an update is
        // due.
        (1024 * KIB, 131_071, 131_071, 256 * KIB, false), // It knows of more than half.
        (1024 * KIB, 131_072, 131_071, 256 * KIB, true), // Half of its limit.
        (1024 * KIB, 131_072, 131_071, 1024 * KIB, false),
        (1024 * KIB, 131_072, 131_071, 0, true), // Without a buffer, it is told of every byte.
        (1024 * KIB, 131_072, 0, 0, false), // There is nothing to report.
        (1024 * KIB, 131_072, 1, 0, true),
        (256 * KIB, 131_071, 131_071, u32::MAX, false),
        (256 * KIB, 131_072, 131_071, u32::MAX, true),
        (256 * KIB, 256 * KIB, 65_535, u32::MAX, false), // Less than a quarter.
        (256 * KIB, 256 * KIB, 65_536, u32::MAX, true),
        (96 * KIB, 32 * KIB - 1, 32 * KIB - 1, u32::MAX, false), // Room for a packet of 64 KiB.
        (96 * KIB, 32 * KIB, 32 * KIB - 1, u32::MAX, true),
        (64 * KIB, 16 * KIB, 16 * KIB, u32::MAX, true), // Half is less than a packet.
    ];
    for (buf_alloc, received, forwarded, cap, due) in cases {
        for start in [0, u32::MAX - 100_000, u32::MAX] {
            let mut ours = RecvWindow::new(buf_alloc, start);
            ours.receive(received).unwrap();
            ours.forward(forwarded);
            let case = (buf_alloc, received, forwarded, cap);
            assert_eq!(ours.update_due(cap), due, "{case:?}");
            ours.advertise();
            assert!(!ours.update_due(cap), "there is nothing to report");
        }
    }
}

#[test]
fn t58_more_than_the_buffer_is_an_overrun() {
    let mut window = RecvWindow::new(1000, 0);
    window.receive(600).unwrap();
    let overrun = window.receive(401);
    let expected = Violation::CreditOverrun {
        used: 600,
        len: 401,
        buf_alloc: 1000,
    };
    assert_eq!(overrun, Err(expected));
    window.receive(400).unwrap();
    assert_eq!(window.used(), 1000);
}

#[test]
fn t59_small_packets_are_bounded_by_number() {
    let mut window = SendWindow::new(1024);
    window.start(credit(256 * 1024, 0));
    let mut sent = 0;
    while window.packets_free() > 0 {
        window.on_sent(1);
        sent += 1;
    }
    assert_eq!(sent, 256);
    assert!(window.free() > 260_000, "byte credit is not the limit");
    window.update(credit(256 * 1024, 200)).unwrap();
    let free = window.packets_free();
    // Packets are retired in runs, and never too many of them.
    assert!((184..=200).contains(&free), "{free}");
    window.update(credit(256 * 1024, 256)).unwrap();
    assert_eq!(window.packets_free(), 256);
}

#[test]
fn t59_one_packet_may_always_be_sent() {
    let mut window = SendWindow::new(1024);
    window.start(credit(128, 0));
    assert_eq!(window.packets_free(), 1);
    window.on_sent(128);
    assert_eq!(window.packets_free(), 0);
}

#[test]
fn t59_packets_are_scarce_when_bytes_would_last_longer() {
    let mut window = SendWindow::new(1024);
    window.start(credit(64 * 1024, 0));
    for _ in 0..32 {
        window.on_sent(16);
    }
    assert!(!window.packets_scarce());
    window.on_sent(16);
    assert!(window.packets_scarce());
    window.on_sent(40_000);
    // When bytes run out, the guest reports credit by itself.
    assert!(!window.packets_scarce());
}

/// The window as the specification defines it, in wide arithmetic.
#[derive(Debug)]
struct WideWindow {
    sent: u64,
    acked: u64,
    buf_alloc: u64,
    largest: u64,
}

/// Buffer sizes, with small ones as likely as large ones.
fn size() -> impl Strategy<Value = u32> {
    (0..=23_u32, 0..=100_u32)
        .prop_map(|(log, percent)| (1 << log) - percent_of(1 << log >> 1, percent))
}

fn percent_of(whole: u32, percent: u32) -> u32 {
    (u64::from(whole) * u64::from(percent) / 100) as u32
}

/// The largest packet that a guest can always send eventually: see [`RecvWindow::update_due`].
fn largest_packet(window: u32) -> u32 {
    (window - window / 4).min(64 * 1024)
}

proptest! {
    #[test]
    fn t48_sent_and_unacknowledged_never_exceeds_what_was_advertised(
        start: u32,
        steps in proptest::collection::vec((0_u32..5000, 0_u32..6000, 0_u32..=100), 1..200),
    ) {
        let mut window = window(start, 4096);
        let mut wide = WideWindow {
            sent: start.into(),
            acked: start.into(),
            buf_alloc: 4096,
            largest: 4096,
        };
        for (send, buf_alloc, ack_percent) in steps {
            let len = send.min(window.free());
            window.on_sent(len);
            wide.sent += u64::from(len);
            prop_assert!(wide.sent - wide.acked <= wide.largest);

            wide.acked += (wide.sent - wide.acked) * u64::from(ack_percent) / 100;
            wide.buf_alloc = buf_alloc.into();
            wide.largest = wide.largest.max(wide.buf_alloc);
            window.update(credit(buf_alloc, wide.acked as u32)).unwrap();
            let free = wide.buf_alloc.saturating_sub(wide.sent - wide.acked);
            prop_assert_eq!(u64::from(window.free()), free);
        }
    }

    #[test]
    fn t49_no_false_fwd_cnt_opens_the_window(
        start: u32,
        sent in 0_u32..4096,
        lie: u32,
    ) {
        let mut window = window(start, 4096);
        window.on_sent(sent);
        let honest = lie.wrapping_sub(start) <= sent;
        match window.update(credit(4096, lie)) {
            Ok(_) if honest => prop_assert!(window.free() <= 4096),
            _ => prop_assert_eq!(window.free(), 4096 - sent),
        }
    }

    #[test]
    fn t58_the_buffer_is_never_overrun(
        buf_alloc in 1_u32..10_000,
        start: u32,
        steps in proptest::collection::vec((0_u32..6000, 0_u32..6000), 1..100),
    ) {
        let mut window = RecvWindow::new(buf_alloc, start);
        let (mut received, mut forwarded) = (0_u64, 0_u64);
        for (receive, forward) in steps {
            let fits = received - forwarded + u64::from(receive) <= u64::from(buf_alloc);
            prop_assert_eq!(window.receive(receive).is_ok(), fits);
            if fits {
                received += u64::from(receive);
            }
            let forward = u64::from(forward).min(received - forwarded);
            window.forward(forward as u32);
            forwarded += forward;
            prop_assert_eq!(u64::from(window.used()), received - forwarded);
            prop_assert_eq!(window.advertise().fwd_cnt, start.wrapping_add(forwarded as u32));
        }
    }

    /// With a guest at the far end, the peer never knows of more room than that guest has, unless
    /// it has shrunk its buffer, nor of more than our own buffer has; and credit is never revoked.
    #[test]
    fn t55_credit_between_guests_is_the_peers_within_our_own_bound(
        buf_alloc in 1_u32..10_000,
        start: u32,
        far_buffer in 0_u32..30_000,
        steps in proptest::collection::vec(
            (0_u32..=100, 0_u32..=100, 0_u32..=100, any::<u32>()),
            1..100,
        ),
    ) {
        let mut window = RecvWindow::new(buf_alloc, start);
        window.set_far(Some(credit(far_buffer, 0)));
        let (mut received, mut forwarded, mut taken) = (0, 0, 0);
        let mut told = window.advertise();
        for (receive, forward, take, lie) in steps {
            let room = told.buf_alloc - (received - told.fwd_cnt.wrapping_sub(start));
            let len = percent_of(room, receive);
            window.receive(len).unwrap();
            received += len;
            let len = percent_of(received - forwarded, forward);
            window.forward(len);
            forwarded += len;
            taken += percent_of(forwarded - taken, take);
            window.set_far(Some(credit(far_buffer, taken)));
            if window.gain(u32::MAX) > 0 && room == 0 {
                prop_assert!(window.awaits_far(u32::MAX));
            }
            told = window.advertise();
            let limit = told.fwd_cnt.wrapping_sub(start) + told.buf_alloc;
            prop_assert_eq!(limit, (taken + far_buffer).min(forwarded + buf_alloc));
            // False claims of taken bytes credit no more than was forwarded, and revoke nothing.
            let mut lied_to = window.clone();
            lied_to.set_far(Some(credit(far_buffer, lie)));
            let lied = lied_to.advertise();
            let advance = lied.fwd_cnt.wrapping_sub(told.fwd_cnt);
            prop_assert!(advance <= forwarded - taken, "{} of {}", advance, forwarded - taken);
            prop_assert!(lied.buf_alloc <= far_buffer);
        }
    }

    /// A guest that waits until a whole packet has room, and never asks for credit. Its window is
    /// our buffer or its own limit.
    #[test]
    fn t53_a_guest_that_sends_whole_packets_or_none_does_not_stall(
        buf_alloc in size(),
        cap in size(),
        is_capped: bool,
        start: u32,
        steps in proptest::collection::vec((0_u32..=100, 0_u32..=100, any::<bool>()), 1..200),
    ) {
        let mut ours = RecvWindow::new(buf_alloc, start);
        let window = if is_capped { buf_alloc.min(cap) } else { buf_alloc };
        let largest = largest_packet(window);
        let (mut sent, mut known) = (start, start);
        for (share, part, speaks) in steps {
            let len = 1 + percent_of(largest - 1, share);
            let room = |known| window - sent.wrapping_sub(known);
            if len > room(known) {
                // It waits while the host accepts everything.
                ours.forward(ours.used());
                if ours.update_due(cap) {
                    known = ours.advertise().fwd_cnt;
                }
                prop_assert!(len <= room(known), "{len} of {window}: {} is free", room(known));
            }
            ours.receive(len).unwrap();
            sent = sent.wrapping_add(len);
            if speaks {
                // The update may be part of any packet.
                known = ours.advertise().fwd_cnt;
            }
            ours.forward(percent_of(ours.used(), part));
            if ours.update_due(cap) {
                known = ours.advertise().fwd_cnt;
            }
        }
    }

    /// A kernel that reports each message that its reader receives and answers each request, in
    /// order. The count is never less than the number of messages in its queue, and equals it when
    /// all reports have arrived.
    #[test]
    fn t129_an_unreceived_message_is_never_counted_as_received(
        start: u32,
        steps in proptest::collection::vec((0_u8..9, 0_u32..3), 1..300),
    ) {
        let buf_alloc = 1 << 20;
        let mut window = SendWindow::new(1024);
        window.start(credit(buf_alloc, start));
        let limit = window.packets_free();
        let mut fwd_cnt = start;
        // In flight to the guest, in its queue, and in flight from it.
        let (mut on_the_way, mut queue) = (VecDeque::new(), VecDeque::new());
        let mut back = VecDeque::new();
        let drain = (0..1000).flat_map(|_| [(2, 0), (4, 0), (6, 0)]);
        for (kind, len) in steps.into_iter().chain(drain) {
            match kind {
                0 => {
                    window.on_sent(len);
                    on_the_way.push_back(Some(len));
                }
                1 => {
                    window.on_asked();
                    on_the_way.push_back(None);
                }
                2 | 3 => match on_the_way.pop_front() {
                    Some(Some(len)) => queue.push_back(len),
                    Some(None) => back.push_back(fwd_cnt),
                    None => {}
                },
                4 | 5 => {
                    if let Some(len) = queue.pop_front() {
                        fwd_cnt = fwd_cnt.wrapping_add(len);
                        back.push_back(fwd_cnt);
                    }
                }
                _ => {
                    if let Some(fwd_cnt) = back.pop_front() {
                        window.on_credit_update(credit(buf_alloc, fwd_cnt)).unwrap();
                    }
                }
            }
            let counted = (limit - window.packets_free()) as usize;
            let there = queue.len() + on_the_way.iter().flatten().count();
            prop_assert!(counted >= there, "{counted} of {there}");
        }
        prop_assert_eq!(window.packets_free(), limit);
    }

    /// Compared with the ends of all packets, the count is never too low, and at most one run too
    /// high.
    #[test]
    fn t59_packets_are_retired_as_their_ends_are_passed(
        start: u32,
        limit in 1_u32..600,
        steps in proptest::collection::vec((0_u32..300, 0_u32..=100), 1..300),
    ) {
        let mut window = PacketWindow::new();
        let mut ends = VecDeque::new();
        let (mut sent, mut acked) = (0_u64, 0_u64);
        for (len, ack_percent) in steps {
            if (ends.len() as u32) < limit {
                sent += u64::from(len);
                ends.push_back(sent);
                window.push(start.wrapping_add(sent as u32), limit);
            }
            acked += (sent - acked) * u64::from(ack_percent) / 100;
            window.retire(start.wrapping_add(acked as u32), start.wrapping_add(sent as u32));
            while ends.front().is_some_and(|end| *end <= acked) {
                ends.pop_front();
            }
            let exact = ends.len() as u32;
            // The last run absorbs what the sixteen marks cannot hold, up to the limit.
            let slack = limit.div_ceil(16).max(1) * 2 + limit % 16;
            prop_assert!(window.unacked() >= exact);
            prop_assert!(window.unacked() <= exact + slack, "{} of {exact}", window.unacked());
        }
        window.retire(start.wrapping_add(sent as u32), start.wrapping_add(sent as u32));
        prop_assert_eq!(window.unacked(), 0);
    }
}
