// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::time::Duration;

use vsock_driver::Descriptor;
use vsock_inner::VsockInnerBackend;
use vsock_proto::{Config, Op};
use vsock_virtio::{F_VERSION_1, Outcome, QueueName, VsockDevice};

use crate::rig::{Rig, SIZE, has_more, muxer, packet};

#[test]
fn t103_each_queue_is_notified_separately() {
    let mut rig = Rig::new();
    assert_eq!(rig.process(), Outcome::default());
    rig.send(packet(Op::Reset, 1024, 80), b"");
    let outcome = rig.process();
    assert!(outcome.notify_tx && !outcome.notify_rx && !outcome.notify_event);
    rig.send(packet(Op::Request, 1024, 80), b"");
    assert!(!rig.process().notify_rx, "there is no buffer");
    rig.post(1);
    let outcome = rig.process();
    assert!(outcome.notify_rx && !outcome.notify_tx && !outcome.notify_event);
}

#[test]
fn a_driver_that_suppresses_notifications_gets_none() {
    let mut rig = Rig::new();
    rig.tx.set_no_interrupt(&rig.memory, true);
    rig.send(packet(Op::Reset, 1024, 80), b"");
    assert!(!rig.process().notify_tx);
    assert_eq!(rig.tx.used(&rig.memory).len(), 1);
    rig.tx.set_no_interrupt(&rig.memory, false);
    rig.send(packet(Op::Reset, 1024, 80), b"");
    assert!(rig.process().notify_tx);
}

#[test]
fn t104_the_used_event_decides_once_for_a_batch() {
    let mut rig = Rig::event_idx();
    rig.tx.set_used_event(&rig.memory, 2);
    for _ in 0..2 {
        rig.send(packet(Op::Reset, 1024, 80), b"");
    }
    assert!(!rig.process().notify_tx, "the driver asked for the third");
    for _ in 0..3 {
        rig.send(packet(Op::Reset, 1024, 80), b"");
    }
    assert!(rig.process().notify_tx);
    rig.send(packet(Op::Reset, 1024, 80), b"");
    assert!(!rig.process().notify_tx, "this was reported before");
}

#[test]
fn t104_a_drained_transmit_queue_asks_for_the_next_chain() {
    let mut rig = Rig::event_idx();
    for _ in 0..5 {
        rig.send(packet(Op::Reset, 1024, 80), b"");
    }
    let _ = rig.process();
    assert_eq!(rig.tx.avail_event(&rig.memory), 5);
    let mut rig = Rig::new();
    rig.send(packet(Op::Reset, 1024, 80), b"");
    let _ = rig.process();
    assert!(rig.tx.wants_kicks(&rig.memory));
}

#[test]
fn buffers_are_asked_for_only_when_they_are_needed() {
    let mut rig = Rig::new();
    rig.post(1);
    let _ = rig.process();
    assert!(!rig.rx.wants_kicks(&rig.memory));
    for port in 0..2 {
        rig.send(packet(Op::Request, 1024 + port, 80), b"");
    }
    let _ = rig.process();
    assert!(rig.rx.wants_kicks(&rig.memory), "an RST waits");
    assert_eq!(rig.received().len(), 1);
    let _ = rig.process();
    assert!(!rig.rx.wants_kicks(&rig.memory));
    assert_eq!(rig.received().len(), 1);

    let mut rig = Rig::event_idx();
    rig.post(1);
    for port in 0..2 {
        rig.send(packet(Op::Request, 1024 + port, 80), b"");
    }
    let _ = rig.process();
    assert_eq!(rig.rx.avail_event(&rig.memory), 1);
}

fn with_budget(bytes: usize) -> Rig {
    let muxer = muxer(VsockInnerBackend::new().unwrap());
    let device = VsockDevice::builder(muxer)
        .budget(bytes)
        .poll_budget(Duration::ZERO);
    Rig::started(device.build(), 0)
}

/// Returns how many chains each call takes from this queue, until the queue is empty.
fn taken_by_calls(rig: &mut Rig, queue: QueueName) -> Vec<usize> {
    let memory = rig.memory.clone();
    let mut taken = Vec::new();
    loop {
        let more = has_more(rig.process());
        taken.push(rig.ring(queue).used(&memory).len());
        if !more {
            return taken;
        }
    }
}

#[test]
fn t76_a_call_ends_with_its_budget_and_requests_another() {
    let mut rig = with_budget(2048 * 4);
    for _ in 0..10 {
        rig.send(packet(Op::Reset, 1024, 80), b"");
    }
    assert_eq!(taken_by_calls(&mut rig, QueueName::Tx), [4, 4, 2]);
    assert_eq!(taken_by_calls(&mut rig, QueueName::Tx), [0]);
}

/// Each descriptor counts as 64 bytes. The chains are as long as the queue allows.
#[test]
fn t76_a_chain_costs_more_of_the_budget_the_more_descriptors_it_has() {
    let empty = |queue| match queue {
        QueueName::Tx => Descriptor::readable(0, 0),
        QueueName::Rx | QueueName::Event => Descriptor::writable(0, 0),
    };
    let into_a_loop = Descriptor::readable(0, 0).then(0);
    let filled = Descriptor::writable(0x80_0000, 44);
    // The queue, the last descriptor of each chain, and how many of ten chains each call takes.
    let cases: [(_, _, &[usize]); 5] = [
        (QueueName::Tx, empty(QueueName::Tx), &[4, 4, 2]),
        (QueueName::Tx, into_a_loop, &[4, 4, 2]),
        // Unusable buffers, buffers for packets that wait, and buffers too small for an event.
        (QueueName::Rx, empty(QueueName::Rx), &[4, 4, 2]),
        (QueueName::Rx, filled, &[4, 2]),
        (QueueName::Event, empty(QueueName::Event), &[4, 4, 2]),
    ];
    for (queue, last, expected) in cases {
        let mut rig = with_budget(64 * 64 * 4);
        let memory = rig.memory.clone();
        let ring = rig.ring(queue);
        ring.chain(&memory, 0, &vec![empty(queue); SIZE.into()]);
        ring.describe(&memory, SIZE - 1, last);
        for _ in 0..10 {
            ring.offer(&memory, 0);
        }
        match queue {
            QueueName::Tx => {}
            QueueName::Rx => {
                for port in 0..6 {
                    rig.send(packet(Op::ReadWrite, 1024 + port, 80), b"");
                }
            }
            QueueName::Event => rig.device.transport_reset(rig.now),
        }
        assert_eq!(taken_by_calls(&mut rig, queue), expected, "{last:?}");
        if queue == QueueName::Tx {
            assert_eq!(rig.device.counters().malformed_packets, 10);
        }
        if queue == QueueName::Event {
            rig.post_events(1, 8);
            assert!(!has_more(rig.process()));
            assert_eq!(rig.device.counters().transport_resets, 1);
        }
    }
}

#[test]
fn t74_t75_pending_replies_stop_the_transmit_queue_until_there_are_buffers() {
    let config = Config::builder().max_resets(4).build().unwrap();
    let backend = VsockInnerBackend::new().unwrap();
    let mut rig = Rig::around(crate::rig::device(backend, config));
    rig.device.ack_features(F_VERSION_1).unwrap();
    rig.activate();
    for port in 0..20 {
        rig.send(packet(Op::ReadWrite, 1024 + port, 80), b"orphan");
    }
    let outcome = rig.process();
    assert!(!has_more(outcome), "only buffers help");
    assert_eq!(rig.tx.used(&rig.memory).len(), 4);
    rig.post(30);
    let outcome = rig.process();
    assert!(outcome.notify_rx && outcome.notify_tx && !has_more(outcome));
    assert_eq!(
        rig.tx.used(&rig.memory).len(),
        16,
        "all the others together"
    );
    assert_eq!(rig.received().len(), 20);
}
