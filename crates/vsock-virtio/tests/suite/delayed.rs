// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Notifications that wait.

use std::io::{Read, Write};
use std::time::Duration;

use virtio_queue::{Queue, QueueT};
use vsock_backend_api::VsockStream;
use vsock_driver::{Descriptor, filled};
use vsock_inner::{VsockInnerBackend, VsockInnerStream};
use vsock_muxer::Muxer;
use vsock_proto::{Config, GuestCid, Header, Op, Tick};
use vsock_virtio::{F_EVENT_IDX, F_VERSION_1, Outcome, QueueName, Queues, VsockDevice};

use crate::rig::{CID, Rig, SIZE, packet};

const PORT: u32 = 80;
const RX_DELAY: Duration = Duration::from_micros(500);
const TX_DELAY: Duration = Duration::from_millis(5);

/// A device as it is built by default.
fn rig(backend: VsockInnerBackend, features: u64) -> Rig {
    let config = Config::builder().build().unwrap();
    let mut muxer = Muxer::new(GuestCid::try_from(CID).unwrap(), config);
    muxer.add_backend(Box::new(backend)).unwrap();
    let mut rig = Rig::around(VsockDevice::builder(muxer).build());
    rig.device.ack_features(F_VERSION_1 | features).unwrap();
    rig.start();
    rig
}

fn alone(features: u64) -> Rig {
    rig(VsockInnerBackend::new().unwrap(), features)
}

/// A packet that has no answer.
fn ignored() -> Header {
    packet(Op::Reset, 1024, 80)
}

/// The driver has reset the device, and begins anew.
fn next_driver(rig: &mut Rig) {
    rig.device.reset(rig.now);
    rig.new_rings();
    rig.device.ack_features(F_VERSION_1).unwrap();
    rig.start();
}

fn pass(rig: &mut Rig, time: Duration) -> Outcome {
    rig.now = rig.now.saturating_add(time);
    rig.device.on_timeout(rig.now);
    rig.process()
}

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

/// A queue has its own size.
fn other_size(queue: &mut Queue) {
    queue.set_size(SIZE / 4);
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
fn nothing_is_owed_after_a_reset() {
    let mut rig = alone(0);
    rig.send(ignored(), b"");
    assert!(!rig.process().notify_tx);
    rig.device.reset(rig.now);
    assert_eq!(rig.device.deadline(), None);
    next_driver(&mut rig);
    assert_eq!(pass(&mut rig, TX_DELAY), Outcome::default());

    let (mut rig, mut host) = with_unread(0);
    let _ = asks(&mut rig, &mut host, 0);
    assert!(!answer(&mut rig, &mut host, 1).notify_rx);
    rig.device.reset(rig.now);
    assert_eq!(rig.device.deadline(), None);
}

#[test]
fn nothing_is_owed_to_a_guest_whose_rings_are_broken() {
    let mut rig = alone(0);
    rig.send(ignored(), b"");
    assert!(!rig.process().notify_tx);
    rig.tx.offer(&rig.memory, SIZE);
    rig.try_process().unwrap_err();
    assert_eq!(rig.device.deadline(), None, "a loop would wake in vain");
}

/// The guest goes on with another device.
fn move_on(rig: &mut Rig, features: u64) {
    let state = rig.device.state();
    let mut next = alone(features);
    next.device.reset(rig.now);
    let [rx, tx, event] = &mut rig.queues;
    let event = Some(event);
    let mut queues = Queues { rx, tx, event };
    next.device
        .restore(rig.now, &rig.memory, &mut queues, &state)
        .unwrap();
    rig.device = next.device;
}

#[test]
fn a_ring_that_was_used_before_is_notified_by_the_next_device() {
    // The last one is where the used index comes round to zero.
    for (features, start) in [
        (0, 0),
        (F_EVENT_IDX, 0),
        (0, u16::MAX),
        (F_EVENT_IDX, u16::MAX),
    ] {
        let mut rig = alone(features);
        let queue = &mut rig.queues[QueueName::Tx.index()];
        rig.tx.go_on_at(&rig.memory, queue, start);
        rig.tx.set_used_event(&rig.memory, start);
        rig.send(ignored(), b"");
        assert!(!rig.process().notify_tx);
        move_on(&mut rig, features);
        assert_eq!(rig.device.deadline(), None, "the next call is due anyway");
        assert!(rig.process().notify_tx);
        assert!(!rig.process().notify_tx, "once");
        rig.tx.set_used_event(&rig.memory, start.wrapping_add(1));
        rig.send(ignored(), b"");
        assert!(!rig.process().notify_tx, "it did not wait for that");
    }
}

#[test]
fn a_timer_does_not_fire_again_and_again_while_the_queues_rest() {
    let mut rig = alone(0);
    rig.send(ignored(), b"");
    assert!(!rig.process().notify_tx);
    rig.now = rig.now.saturating_add(TX_DELAY);
    rig.device.on_timeout(rig.now);
    assert_eq!(rig.device.deadline(), None);
    assert!(rig.process().notify_tx, "whenever that is");

    let (mut rig, mut host) = with_unread(0);
    let _ = asks(&mut rig, &mut host, 0);
    assert!(!answer(&mut rig, &mut host, 1).notify_rx);
    rig.now = rig.now.saturating_add(RX_DELAY);
    rig.device.on_timeout(rig.now);
    assert_eq!(rig.device.deadline(), None);
    assert!(rig.process().notify_rx);
}

/// A guest with a connection on which it has 1,000 bytes to read of which it was notified.
fn with_unread(features: u64) -> (Rig, VsockInnerStream) {
    with_unread_of(|backend| rig(backend, features))
}

fn with_unread_of(device: impl FnOnce(VsockInnerBackend) -> Rig) -> (Rig, VsockInnerStream) {
    let backend = VsockInnerBackend::new().unwrap();
    let listener = backend.listen(PORT).unwrap();
    let mut rig = device(backend);
    rig.post(SIZE);
    rig.send(packet(Op::Request, 1024, PORT), b"");
    rig.settle();
    let mut host = listener.accept().unwrap();
    host.set_nonblocking(true).unwrap();
    let _ = pass(&mut rig, TX_DELAY);
    hears(&mut rig, 1);
    assert!(answer(&mut rig, &mut host, 1000).notify_rx);
    hears(&mut rig, 2);
    (rig, host)
}

/// The driver has seen so many used buffers, and asks to be notified of the next one.
fn hears(rig: &mut Rig, seen: u16) {
    rig.rx.set_used_event(&rig.memory, seen);
}

fn asks(rig: &mut Rig, host: &mut VsockInnerStream, fwd_cnt: u32) -> Outcome {
    let question = Header {
        fwd_cnt,
        ..packet(Op::ReadWrite, 1024, PORT)
    };
    rig.send(question, b"?");
    let outcome = rig.process();
    assert_eq!(host.read(&mut [0]).unwrap(), 1);
    outcome
}

fn answer(rig: &mut Rig, host: &mut VsockInnerStream, len: usize) -> Outcome {
    host.write_all(&vec![0; len]).unwrap();
    rig.ready();
    rig.process()
}

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
fn the_first_of_both_notifications_sets_the_timer() {
    let (mut rig, mut host) = with_unread(0);
    for _ in 0..SIZE / 4 {
        rig.send(packet(Op::CreditUpdate, 1024, PORT), b"");
    }
    let _ = rig.process();
    let _ = asks(&mut rig, &mut host, 0);
    let taken = rig.now;
    assert_eq!(rig.device.deadline(), Some(taken.saturating_add(TX_DELAY)));
    assert!(!answer(&mut rig, &mut host, 1).notify_rx);
    assert_eq!(rig.device.deadline(), Some(taken.saturating_add(RX_DELAY)));
    assert!(pass(&mut rig, RX_DELAY).notify_rx);
    assert_eq!(rig.device.deadline(), Some(taken.saturating_add(TX_DELAY)));
}

#[test]
fn a_notification_sets_the_timer_before_a_later_deadline_of_the_muxer() {
    let backend = VsockInnerBackend::new().unwrap();
    let connector = backend.get_connector();
    let mut rig = rig(backend, 0);
    let _client = connector.connect().unwrap();
    rig.settle();
    let greeting = rig.device.deadline().unwrap();
    rig.send(ignored(), b"");
    assert!(!rig.process().notify_tx);
    let due = rig.now.saturating_add(TX_DELAY);
    assert!(due < greeting);
    assert_eq!(rig.device.deadline(), Some(due));
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
fn without_delays_nothing_waits() {
    let (mut rig, mut host) = with_unread_of(|backend| Rig::with(backend, 0));
    let _ = asks(&mut rig, &mut host, 0);
    assert!(answer(&mut rig, &mut host, 1).notify_rx);
    rig.send(ignored(), b"");
    assert!(rig.process().notify_tx);
    assert_eq!(rig.device.deadline(), None);
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

#[test]
fn what_is_due_is_given_by_a_clock_that_runs_backwards() {
    let mut rig = alone(0);
    rig.send(ignored(), b"");
    assert!(!rig.process().notify_tx);
    rig.device.on_timeout(rig.now.saturating_add(TX_DELAY));
    assert_eq!(rig.device.deadline(), None);
    assert!(rig.process().notify_tx, "nothing would ask for it again");
}
