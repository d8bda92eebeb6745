// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The notifications that a device suppresses while it is awake: kicks, and interrupts for taken
//! packets.

use std::time::Duration;

use virtio_queue::QueueT;
use vsock_driver::{Descriptor, filled};
use vsock_inner::VsockInnerBackend;
use vsock_proto::{Header, Op};
use vsock_virtio::{F_EVENT_IDX, F_VERSION_1, NextCall, Outcome, QueueName, VsockDevice};

use crate::rig::{Rig, SIZE, muxer, packet};

/// The default.
const BUDGET: Duration = Duration::from_micros(30);
const FEATURES: [u64; 2] = [0, F_EVENT_IDX];

/// Creates a device that has started and sleeps.
fn asleep(features: u64) -> Rig {
    built(BUDGET, features)
}

fn built(poll_budget: Duration, features: u64) -> Rig {
    let muxer = muxer(VsockInnerBackend::new().unwrap());
    let device = VsockDevice::builder(muxer).poll_budget(poll_budget);
    Rig::started(device.build(), features)
}

/// Creates a packet without a reply.
fn ignored() -> Header {
    packet(Op::Reset, 1024, 80)
}

fn send(rig: &mut Rig) -> Outcome {
    rig.send(ignored(), b"");
    rig.process()
}

fn pass(rig: &mut Rig, time: Duration) -> Outcome {
    rig.now = rig.now.saturating_add(time);
    rig.process()
}

fn pass_and_send(rig: &mut Rig, time: Duration) -> Outcome {
    rig.now = rig.now.saturating_add(time);
    send(rig)
}

fn polls(outcome: Outcome) -> bool {
    matches!(outcome.next, NextCall::Poll { .. })
}

/// Returns whether the driver would kick for its next packet.
fn wants_kick(rig: &Rig, features: u64) -> bool {
    if features == 0 {
        rig.tx.wants_kicks(&rig.memory)
    } else {
        rig.tx.avail_event(&rig.memory) == rig.tx.available()
    }
}

#[test]
fn after_work_a_device_polls_without_kicks_and_then_sleeps_with_them() {
    for features in FEATURES {
        let mut rig = asleep(features);
        assert!(wants_kick(&rig, features));
        let until = rig.now.saturating_add(BUDGET);
        assert_eq!(send(&mut rig).next, NextCall::Poll { until });
        assert!(!wants_kick(&rig, features));
        // The work took a long time. The budget starts with the first look after it.
        let first = pass(&mut rig, 2 * BUDGET);
        let until = rig.now.saturating_add(BUDGET);
        assert_eq!(first.next, NextCall::Poll { until });
        let halfway = pass(&mut rig, BUDGET / 2);
        assert_eq!(halfway.next, NextCall::Poll { until }, "no longer");
        assert!(!wants_kick(&rig, features));
        assert_eq!(pass(&mut rig, BUDGET / 2).next, NextCall::OnEvent);
        assert!(wants_kick(&rig, features));
        assert_eq!(rig.device.deadline(), None, "polling needs no timer");
    }
}

/// How the device waited for a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Waited {
    /// A poll found it.
    Hit,
    /// It came after a poll had ended.
    Missed,
    Slept,
}

/// A guest that sends each packet after a pause.
struct Paced {
    rig: Rig,
    next: NextCall,
}

impl Paced {
    fn new() -> Self {
        let mut rig = asleep(0);
        let next = send(&mut rig).next;
        Self { rig, next }
    }

    fn pause(&mut self, time: Duration) -> Waited {
        let Self { rig, next } = self;
        let due = rig.now.saturating_add(time);
        let polled = *next != NextCall::OnEvent;
        while *next != NextCall::OnEvent && rig.now < due {
            *next = rig.process().next;
            rig.now = rig.now.saturating_add(BUDGET / 8);
        }
        let hit = *next != NextCall::OnEvent;
        rig.now = due;
        *next = send(rig).next;
        rig.tx.used(&rig.memory);
        match (polled, hit) {
            (true, true) => Waited::Hit,
            (true, false) => Waited::Missed,
            (false, _) => Waited::Slept,
        }
    }

    fn pauses(&mut self, times: &[Duration]) -> Vec<Waited> {
        times.iter().map(|&time| self.pause(time)).collect()
    }
}

/// Pauses that a poll covers, that are short but too long for a poll, and that are long.
const SOON: Duration = BUDGET.checked_div(2).unwrap();
const LATE: Duration = BUDGET.saturating_mul(2).checked_sub(SOON).unwrap();
const LONG: Duration = BUDGET.saturating_mul(20);

fn count(waits: &[Waited], what: Waited) -> usize {
    waits.iter().filter(|&&wait| wait == what).count()
}

#[test]
fn the_device_polls_for_a_fast_guest_but_not_for_a_slow_one() {
    let mut guest = Paced::new();
    assert_eq!(guest.pauses(&[SOON; 100]), [Waited::Hit; 100]);
    let waits = guest.pauses(&[LONG; 100]);
    assert!(count(&waits, Waited::Missed) <= 4, "{waits:?}");
    assert_eq!(waits[10..], [Waited::Slept; 90]);
    // Sleeps show that the guest is fast again; that needs no poll.
    let waits = guest.pauses(&[SOON; 100]);
    assert_eq!(count(&waits, Waited::Missed), 0);
    assert_eq!(waits[10..], [Waited::Hit; 90]);
}

#[test]
fn pauses_after_long_and_after_short_pauses_are_learnt_separately() {
    use Waited::{Hit, Missed, Slept};
    let mut guest = Paced::new();
    let _learns = guest.pauses(&[SOON, LONG].repeat(8));
    let waits = guest.pauses(&[SOON, LONG].repeat(8));
    assert_eq!(waits, [Hit, Slept].repeat(8));

    let burst = [LONG, SOON, SOON, SOON, SOON, SOON, SOON, SOON];
    let _learns = guest.pauses(&burst.repeat(8));
    let waits = guest.pauses(&burst.repeat(8));
    let once = [Missed, Hit, Hit, Hit, Hit, Hit, Hit, Hit];
    assert_eq!(waits, once.repeat(8), "one miss at the end of each");
}

#[test]
fn polls_that_delay_the_guest_become_rare_until_they_hit_again() {
    // The guest sends as soon as the device sleeps.
    let mut guest = Paced::new();
    let waits = guest.pauses(&[LATE; 4096]);
    assert_eq!(count(&waits, Waited::Hit), 0);
    let polls = |waits: &[Waited]| count(waits, Waited::Missed);
    assert_eq!(polls(&waits[..2]), 2);
    assert!((6..=8).contains(&polls(&waits[..513])), "{waits:?}");
    assert_eq!(polls(&waits[4096 - 1024..]), 4, "one in 256");

    let waits = guest.pauses(&[SOON; 1024]);
    assert_eq!(waits[768..], [Waited::Hit; 256]);
    assert_eq!(polls(&waits), 0);
}

#[test]
fn rare_exceptions_have_no_effect() {
    let mut guest = Paced::new();
    let rhythm = [SOON, LONG, LONG, LONG];
    let _learns = guest.pauses(&rhythm.repeat(2));
    let waits = guest.pauses(&rhythm.repeat(8));
    assert_eq!(waits, [Waited::Slept; 32], "a fast packet now and then");
    // Polls that hit by chance, while most of them delay the guest.
    let mut guest = Paced::new();
    let rhythm = [LATE, LATE, LATE, LATE, SOON];
    let _learns = guest.pauses(&rhythm.repeat(200));
    let waits = guest.pauses(&rhythm.repeat(400));
    assert!(count(&waits, Waited::Slept) > 1950, "{waits:?}");
}

#[test]
fn polls_with_two_hits_for_each_delay_continue() {
    let mut guest = Paced::new();
    let waits = guest.pauses(&[SOON, LATE, SOON].repeat(200));
    assert_eq!(count(&waits, Waited::Slept), 0);
}

#[test]
fn polls_that_delay_as_often_as_they_hit_become_rare() {
    let mut guest = Paced::new();
    let _learns = guest.pauses(&[SOON, LATE].repeat(200));
    let waits = guest.pauses(&[SOON, LATE].repeat(400));
    assert!(count(&waits, Waited::Slept) > 700, "{waits:?}");
}

#[test]
fn a_call_that_moves_no_packet_starts_no_poll() {
    let mut rig = asleep(0);
    assert_eq!(rig.process().next, NextCall::OnEvent);
}

#[test]
fn t134_without_a_budget_every_notification_is_sent() {
    for features in FEATURES {
        let backend = VsockInnerBackend::new().unwrap();
        let mut rig = Rig::with(backend, features);
        for seen in 0..SIZE / 2 {
            rig.tx.set_used_event(&rig.memory, seen);
            let outcome = send(&mut rig);
            assert!(outcome.notify_tx && outcome.next == NextCall::OnEvent);
            assert!(wants_kick(&rig, features));
        }
    }
}

#[test]
fn t134_a_filled_buffer_is_reported_immediately_even_by_a_device_that_polls() {
    for features in FEATURES {
        let mut rig = asleep(features);
        for seen in 0..20 {
            rig.rx.set_used_event(&rig.memory, seen);
            rig.post(1);
            rig.send(packet(Op::ReadWrite, 1024, 80), b"orphan");
            let outcome = rig.process();
            assert!(outcome.notify_rx && polls(outcome), "its RST");
            rig.tx.used(&rig.memory);
        }
    }
}

#[test]
fn taken_packets_are_reported_when_they_fill_a_quarter_of_the_queue() {
    for features in FEATURES {
        let mut rig = asleep(features);
        // Each queue has its own size.
        rig.queues[QueueName::Rx.index()].set_size(SIZE / 4);
        for sent in 1..=SIZE / 4 {
            assert_eq!(send(&mut rig).notify_tx, sent == SIZE / 4, "{sent}");
        }
    }
    // A quarter of the descriptors.
    let mut rig = asleep(0);
    filled(&rig.memory, 0x10_0000, &ignored().encode());
    let mut row = vec![Descriptor::readable(0x10_0000, 0); usize::from(SIZE / 4)];
    row[0] = Descriptor::readable(0x10_0000, 44);
    rig.tx.chain(&rig.memory, 0, &row);
    rig.tx.offer(&rig.memory, 0);
    assert!(rig.process().notify_tx);
}

#[test]
fn taken_packets_are_reported_when_the_device_sleeps_or_the_guest_pauses() {
    for features in FEATURES {
        let mut rig = asleep(features);
        for _ in 0..3 {
            assert!(!send(&mut rig).notify_tx);
        }
        assert!(!pass(&mut rig, BUDGET / 2).notify_tx);
        let outcome = pass(&mut rig, BUDGET / 2);
        assert!(outcome.notify_tx && polls(outcome), "a pause");
        assert!(!rig.process().notify_tx, "once");
        assert_eq!(pass(&mut rig, BUDGET).next, NextCall::OnEvent);
        // After a long pause, the device expects another long one.
        rig.tx.used(&rig.memory);
        rig.tx.set_used_event(&rig.memory, rig.tx.seen());
        let outcome = pass_and_send(&mut rig, LONG);
        assert!(outcome.notify_tx && outcome.next == NextCall::OnEvent);

        // Other work keeps the device awake.
        let mut rig = asleep(features);
        rig.send(packet(Op::ReadWrite, 1024, 80), b"orphan");
        rig.send(packet(Op::ReadWrite, 1025, 80), b"orphan");
        assert!(!rig.process().notify_tx);
        rig.post(1);
        assert!(!pass(&mut rig, BUDGET / 2).notify_tx);
        rig.post(1);
        let outcome = pass(&mut rig, BUDGET / 2);
        assert!(outcome.notify_tx && polls(outcome));
    }
}

#[test]
fn taken_packets_of_a_guest_that_never_stops_are_reported_in_time() {
    let each = Duration::from_micros(500);
    let mut rig = built(2 * each, F_EVENT_IDX);
    for sent in 0..20 {
        let outcome = send(&mut rig);
        // 2 ms after the first packet.
        assert_eq!(outcome.notify_tx, sent % 5 == 4, "{sent}");
        if outcome.notify_tx {
            rig.tx.used(&rig.memory);
            rig.tx.set_used_event(&rig.memory, rig.tx.seen());
        }
        rig.now = rig.now.saturating_add(each);
    }
}

#[test]
fn whether_a_driver_wants_an_interrupt_is_checked_at_the_end_of_a_batch() {
    let mut rig = asleep(0);
    let _ = send(&mut rig);
    rig.tx.set_no_interrupt(&rig.memory, true);
    assert!(!pass(&mut rig, BUDGET).notify_tx, "the driver polls");
    let mut rig = asleep(F_EVENT_IDX);
    rig.tx.set_used_event(&rig.memory, 2);
    for _ in 0..2 {
        let _ = send(&mut rig);
    }
    assert!(
        !pass(&mut rig, BUDGET).notify_tx,
        "the driver asked for the third"
    );
    let _ = send(&mut rig);
    assert!(pass(&mut rig, BUDGET).notify_tx);
}

#[test]
fn a_device_that_takes_over_used_queues_notifies_once_for_both() {
    // In the last case, the used index has wrapped around to zero.
    let starts = FEATURES.map(|features| [(features, 0), (features, u16::MAX)]);
    for (features, start) in starts.concat() {
        let mut rig = asleep(features);
        let queue = &mut rig.queues[QueueName::Tx.index()];
        rig.tx.go_on_at(&rig.memory, queue, start);
        rig.tx.set_used_event(&rig.memory, start);
        assert!(!send(&mut rig).notify_tx);
        let state = rig.device.state();
        let mut next = asleep(features);
        next.device.reset(rig.now);
        rig.device = next.device;
        rig.restore(&state).unwrap();
        let outcome = rig.process();
        assert!(outcome.notify_tx && outcome.notify_rx);
        rig.wait_out_the_event();
        assert_eq!(rig.process(), Outcome::default());
        assert!(wants_kick(&rig, features));
        let outcome = rig.process();
        assert!(!outcome.notify_tx && !outcome.notify_rx, "once");
    }
}

#[test]
fn a_new_driver_gets_no_notification_of_the_previous_one() {
    let mut rig = asleep(0);
    let _ = send(&mut rig);
    rig.device.reset(rig.now);
    rig.new_rings();
    rig.device.ack_features(F_VERSION_1).unwrap();
    rig.start();
    assert_eq!(pass(&mut rig, BUDGET), Outcome::default());
    // Nor does a driver whose queues were broken.
    let _ = send(&mut rig);
    rig.tx.offer(&rig.memory, SIZE);
    rig.try_process().unwrap_err();
    assert_eq!(rig.device.deadline(), None);
}
