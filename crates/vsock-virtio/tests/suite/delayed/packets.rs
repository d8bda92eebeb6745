// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! That packets were taken.

use super::*;

#[test]
fn a_packet_is_given_back_at_once_and_told_when_its_time_has_come() {
    for features in [0, F_EVENT_IDX] {
        let mut rig = alone(features);
        rig.send(ignored(), b"");
        assert!(!rig.process().notify_tx);
        assert_eq!(rig.tx.used(&rig.memory).len(), 1);
        let due = Tick::ZERO.saturating_add(TX_DELAY);
        assert_eq!(rig.device.deadline(), Some(due));
        assert!(!pass(&mut rig, TX_DELAY - Duration::from_nanos(1)).notify_tx);
        assert!(pass(&mut rig, Duration::from_nanos(1)).notify_tx);
        assert_eq!(rig.device.deadline(), None);
        assert!(!pass(&mut rig, TX_DELAY).notify_tx, "once");
    }
}

#[test]
fn packets_that_come_meanwhile_do_not_put_it_off() {
    let mut rig = alone(F_EVENT_IDX);
    for _ in 0..4 {
        rig.send(ignored(), b"");
        assert!(!pass(&mut rig, TX_DELAY / 4).notify_tx);
    }
    rig.send(ignored(), b"");
    assert!(pass(&mut rig, TX_DELAY / 4).notify_tx);
    assert_eq!(rig.device.deadline(), None, "that was for all of them");
}

#[test]
fn a_quarter_of_the_ring_does_not_wait() {
    for features in [0, F_EVENT_IDX] {
        let mut rig = alone(features);
        other_size(&mut rig.queues[0]);
        for sent in 1..=SIZE / 4 {
            rig.send(ignored(), b"");
            assert_eq!(rig.process().notify_tx, sent == SIZE / 4, "{sent}");
        }
        assert_eq!(rig.device.deadline(), None);
    }
}

#[test]
fn a_quarter_of_the_ring_in_one_call_does_not_wait() {
    let mut rig = alone(0);
    for _ in 0..SIZE / 4 {
        rig.send(ignored(), b"");
    }
    assert!(rig.process().notify_tx);
}

#[test]
fn a_quarter_is_counted_in_descriptors() {
    let mut rig = alone(0);
    let header = ignored().encode();
    filled(&rig.memory, 0x10_0000, &header);
    let mut row = vec![Descriptor::readable(0x10_0000, 0); usize::from(SIZE / 4)];
    row[0] = Descriptor::readable(0x10_0000, 44);
    rig.tx.chain(&rig.memory, 0, &row);
    rig.tx.offer(&rig.memory, 0);
    assert!(rig.process().notify_tx);
}

#[test]
fn a_driver_that_wants_no_notification_has_no_timer() {
    let mut rig = alone(0);
    rig.tx.set_no_interrupt(&rig.memory, true);
    rig.send(ignored(), b"");
    assert!(!rig.process().notify_tx);
    assert_eq!(rig.device.deadline(), None);

    let mut rig = alone(F_EVENT_IDX);
    rig.tx.set_used_event(&rig.memory, 1);
    rig.send(ignored(), b"");
    assert!(!rig.process().notify_tx);
    assert_eq!(rig.device.deadline(), None);
    rig.send(ignored(), b"");
    assert!(!rig.process().notify_tx);
    assert!(rig.device.deadline().is_some(), "that was asked for");
    assert!(pass(&mut rig, TX_DELAY).notify_tx);
    rig.send(ignored(), b"");
    assert!(!rig.process().notify_tx);
    assert_eq!(rig.device.deadline(), None, "it has not asked again");
}

#[test]
fn a_driver_that_waits_for_its_packet_is_told_at_once_from_then_on() {
    for pause in [Duration::ZERO, TX_DELAY / 2] {
        let mut rig = alone(0);
        rig.send(ignored(), b"");
        assert!(!rig.process().notify_tx);
        assert!(pass(&mut rig, TX_DELAY).notify_tx);
        for _ in 0..256 {
            rig.tx.used(&rig.memory);
            rig.send(ignored(), b"");
            assert!(pass(&mut rig, pause).notify_tx);
        }
        rig.send(ignored(), b"");
        assert!(!rig.process().notify_tx, "it is tried again");
    }
}

#[test]
fn a_driver_that_goes_on_waiting_is_tried_ever_more_rarely() {
    let mut rig = alone(0);
    let at_once = |rig: &mut Rig| {
        let mut count = 0;
        loop {
            rig.tx.used(&rig.memory);
            rig.send(ignored(), b"");
            if !rig.process().notify_tx {
                return count;
            }
            count += 1;
        }
    };
    assert_eq!(at_once(&mut rig), 0);
    for expected in [256, 512, 1024, 2048, 4096, 4096] {
        assert!(pass(&mut rig, TX_DELAY).notify_tx);
        assert_eq!(at_once(&mut rig), expected);
    }
    // It sends much for once.
    for sent in 2..=SIZE / 4 {
        rig.send(ignored(), b"");
        assert_eq!(rig.process().notify_tx, sent == SIZE / 4);
    }
    assert_eq!(at_once(&mut rig), 0);
    assert!(pass(&mut rig, TX_DELAY).notify_tx);
    assert_eq!(at_once(&mut rig), 256);
}

#[test]
fn what_a_driver_waited_for_says_nothing_of_the_next_driver() {
    let mut rig = alone(0);
    rig.send(ignored(), b"");
    let _ = rig.process();
    assert!(pass(&mut rig, TX_DELAY).notify_tx);
    rig.send(ignored(), b"");
    assert!(rig.process().notify_tx);
    next_driver(&mut rig);
    rig.send(ignored(), b"");
    assert!(!rig.process().notify_tx);
}

#[test]
fn a_driver_that_waits_for_a_few_packets_is_told_at_once_too() {
    let mut rig = alone(0);
    for _ in 0..8 {
        rig.send(ignored(), b"");
        assert!(!pass(&mut rig, TX_DELAY / 16).notify_tx);
    }
    assert!(pass(&mut rig, TX_DELAY).notify_tx);
    rig.send(ignored(), b"");
    assert!(rig.process().notify_tx);
}

#[test]
fn a_batch_that_is_told_late_was_not_in_vain() {
    let mut rig = alone(0);
    rig.send(ignored(), b"");
    assert!(!rig.process().notify_tx);
    for _ in 1..SIZE / 4 {
        rig.send(ignored(), b"");
    }
    assert!(pass(&mut rig, TX_DELAY).notify_tx);
    rig.send(ignored(), b"");
    assert!(!rig.process().notify_tx);
}

#[test]
fn what_the_guest_of_a_driver_has_asked_is_no_question_of_the_next_one() {
    let (mut rig, mut host) = with_unread(0);
    assert!(told_of_a_byte(&mut rig, &mut host));
    next_driver(&mut rig);
    rig.send(ignored(), b"");
    assert!(!rig.process().notify_tx);
}

#[test]
fn a_driver_that_sends_too_little_for_a_batch_is_told_at_once_too() {
    let mut rig = alone(0);
    rig.send(ignored(), b"");
    assert!(!rig.process().notify_tx);
    for _ in 0..5 {
        assert!(pass(&mut rig, TX_DELAY).notify_tx);
        rig.send(ignored(), b"");
    }
}

/// The guest sends a byte on its connection, and is notified of that or not.
fn told_of_a_byte(rig: &mut Rig, host: &mut VsockInnerStream) -> bool {
    asks(rig, host, 0).notify_tx
}

#[test]
fn a_guest_that_gets_answers_is_told_at_once() {
    let (mut rig, mut host) = with_unread(0);
    for _ in 0..20 {
        assert!(told_of_a_byte(&mut rig, &mut host));
        let _ = pass(&mut rig, RX_DELAY);
        assert!(answer(&mut rig, &mut host, 1).notify_rx);
    }
}

#[test]
fn a_guest_that_gets_no_more_answers_is_told_later() {
    let (mut rig, mut host) = with_unread(0);
    assert!(told_of_a_byte(&mut rig, &mut host));
    assert!(answer(&mut rig, &mut host, 2000).notify_rx);
    for sent in 1..=9 {
        assert_eq!(told_of_a_byte(&mut rig, &mut host), sent < 8, "{sent}");
    }
}

#[test]
fn a_guest_with_many_requests_under_way_is_told_later() {
    let (mut rig, mut host) = with_unread(0);
    for round in 0..2 {
        for sent in 1..=8 {
            let at_once = round == 0 && sent < 8;
            assert_eq!(
                told_of_a_byte(&mut rig, &mut host),
                at_once,
                "{round}, {sent}"
            );
        }
        assert!(answer(&mut rig, &mut host, 2000).notify_rx);
        rig.received();
        rig.send(packet(Op::CreditUpdate, 1024, PORT), b"");
        let _ = rig.process();
        rig.tx.used(&rig.memory);
        rig.now = rig.now.saturating_add(RX_DELAY);
    }
}

#[test]
fn a_guest_that_reads_and_says_so_is_told_later() {
    let (mut rig, mut host) = with_unread(0);
    let mut told = 0;
    for _ in 0..15 {
        rig.send(packet(Op::CreditUpdate, 1024, PORT), b"");
        told += u32::from(rig.process().notify_tx);
        assert!(answer(&mut rig, &mut host, 1000).notify_rx || pass(&mut rig, RX_DELAY).notify_rx);
    }
    assert!(told < 10, "{told}");
}

#[test]
fn what_is_due_is_given_by_a_clock_that_runs_backwards() {
    let mut rig = alone(0);
    rig.send(ignored(), b"");
    assert!(!rig.process().notify_tx);
    rig.device.on_timeout(rig.now.saturating_add(TX_DELAY));
    assert_eq!(rig.device.deadline(), None);
    assert!(rig.process().notify_tx, "nothing would ask for it again");
}
