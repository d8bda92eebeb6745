// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! That buffers were filled.

use super::*;

#[test]
fn a_guest_that_has_enough_to_read_is_told_of_more_after_a_while() {
    for features in [0, F_EVENT_IDX] {
        let (mut rig, mut host) = with_unread(features);
        let _ = asks(&mut rig, &mut host, 200);
        assert!(!answer(&mut rig, &mut host, 100).notify_rx);
        let due = rig.now.saturating_add(RX_DELAY);
        assert_eq!(rig.device.deadline(), Some(due));
        assert!(!pass(&mut rig, RX_DELAY / 2).notify_rx);
        assert!(!answer(&mut rig, &mut host, 100).notify_rx);
        assert!(pass(&mut rig, RX_DELAY / 2).notify_rx, "that is no later");
        assert!(!pass(&mut rig, RX_DELAY).notify_rx, "once");
    }
}

#[test]
fn a_guest_is_told_before_it_has_read_what_it_has() {
    for features in [0, F_EVENT_IDX] {
        let (mut rig, mut host) = with_unread(features);
        let _ = asks(&mut rig, &mut host, 200);
        assert!(!answer(&mut rig, &mut host, 400).notify_rx);
        assert!(answer(&mut rig, &mut host, 1).notify_rx);

        let (mut rig, mut host) = with_unread(features);
        let _ = asks(&mut rig, &mut host, 200);
        assert!(!answer(&mut rig, &mut host, 200).notify_rx);
        let question = Header {
            fwd_cnt: 601,
            ..packet(Op::ReadWrite, 1024, PORT)
        };
        rig.send(question, b"?");
        assert!(rig.process().notify_rx, "with nothing sent in this call");
    }
}

#[test]
fn a_guest_that_has_read_all_is_told_at_once() {
    for features in [0, F_EVENT_IDX] {
        let (mut rig, mut host) = with_unread(features);
        let _ = asks(&mut rig, &mut host, 1000);
        assert!(answer(&mut rig, &mut host, 1).notify_rx);
    }
}

#[test]
fn what_a_guest_has_seen_that_asked_for_no_notification_counts_as_told() {
    let (mut rig, mut host) = with_unread(0);
    rig.rx.set_no_interrupt(&rig.memory, true);
    assert!(!answer(&mut rig, &mut host, 1000).notify_rx);
    assert_eq!(rig.device.deadline(), None);
    rig.rx.set_no_interrupt(&rig.memory, false);
    let _ = asks(&mut rig, &mut host, 1000);
    assert!(!answer(&mut rig, &mut host, 500).notify_rx);
    assert!(answer(&mut rig, &mut host, 1).notify_rx);
}

#[test]
fn a_guest_with_enough_to_read_is_told_of_a_quarter_of_its_ring_at_once() {
    let (mut rig, mut host) = with_unread(0);
    other_size(&mut rig.queues[1]);
    let _ = asks(&mut rig, &mut host, 0);
    for filled in 1..=SIZE / 4 {
        let notified = answer(&mut rig, &mut host, 1).notify_rx;
        assert_eq!(notified, filled == SIZE / 4, "{filled}");
    }
}

#[test]
fn a_guest_that_has_said_nothing_for_the_delay_is_told_at_once() {
    let (mut rig, mut host) = with_unread(0);
    let _ = asks(&mut rig, &mut host, 0);
    let _ = pass(&mut rig, RX_DELAY);
    assert!(answer(&mut rig, &mut host, 1).notify_rx);
}

#[test]
fn a_guest_that_knows_of_some_buffers_is_told_of_others_by_the_next_device() {
    for features in [0, F_EVENT_IDX] {
        let (mut rig, mut host) = with_unread(features);
        let _ = asks(&mut rig, &mut host, 200);
        assert!(!answer(&mut rig, &mut host, 100).notify_rx);
        move_on(&mut rig, features);
        assert!(rig.process().notify_rx);
        assert!(!rig.process().notify_rx, "once");
    }
}

#[test]
fn a_guest_that_must_offer_buffers_is_told_at_once() {
    let (mut rig, mut host) = with_unread(F_EVENT_IDX);
    assert!(answer(&mut rig, &mut host, usize::from(SIZE - 12) * 4052).notify_rx);
    let used = u16::try_from(rig.rx.used(&rig.memory).len()).unwrap();
    assert!(used > SIZE - SIZE / 4, "{used}");
    hears(&mut rig, used);
    let _ = asks(&mut rig, &mut host, 0);
    for _ in used + 1..SIZE {
        assert!(!answer(&mut rig, &mut host, 1).notify_rx);
    }
    assert!(
        answer(&mut rig, &mut host, 1).notify_rx,
        "there is none for it"
    );
}
