// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The counters and depths of a device's queues.

use std::time::Duration;

use vsock_inner::VsockInnerBackend;
use vsock_proto::{Config, Op};
use vsock_virtio::{F_EVENT_IDX, QueueCounters, VsockDevice};

use crate::rig::{Rig, SIZE, device, muxer, packet};

/// Returns the used chains, and the sent and spared notifications.
fn counts(queue: &QueueCounters) -> (u64, u64, u64) {
    (
        queue.chains_used,
        queue.notifications_sent,
        queue.notifications_spared,
    )
}

#[test]
fn each_used_chain_counts_as_a_notification_sent_or_suppressed() {
    let mut rig = Rig::new();
    let tx = |rig: &Rig| counts(&rig.device.counters().tx);
    assert_eq!(tx(&rig), (0, 1, 0), "the first call always notifies");
    for _ in 0..5 {
        rig.send(packet(Op::Reset, 1024, 80), b"");
    }
    assert!(rig.process().notify_tx);
    assert_eq!(tx(&rig), (5, 2, 4), "one notification for all five");
    rig.tx.set_no_interrupt(&rig.memory, true);
    rig.send(packet(Op::Reset, 1024, 80), b"");
    assert!(!rig.process().notify_tx);
    assert_eq!(tx(&rig), (6, 2, 5), "the driver does not want one");
    assert_eq!(counts(&rig.device.counters().rx), (0, 1, 0));

    rig.send(packet(Op::Request, 1024, 80), b"");
    rig.post(3);
    assert!(rig.process().notify_rx);
    assert_eq!(counts(&rig.device.counters().rx), (1, 2, 0));
    let _ = rig.process();
    assert_eq!(
        counts(&rig.device.counters().rx),
        (1, 2, 0),
        "nothing was used"
    );
}

#[test]
fn a_batch_that_waits_for_its_notification_is_counted_when_it_is_decided() {
    let backend = VsockInnerBackend::new().unwrap();
    let polls = VsockDevice::builder(muxer(backend)).poll_budget(Duration::from_micros(30));
    let mut rig = Rig::started(polls.build(), F_EVENT_IDX);
    let tx = |rig: &Rig| counts(&rig.device.counters().tx);
    rig.send(packet(Op::Reset, 1024, 80), b"");
    assert!(!rig.process().notify_tx, "the device is awake");
    assert_eq!(tx(&rig), (1, 1, 0));
    for _ in 0..2 {
        rig.now = rig.now.saturating_add(Duration::from_millis(1));
        let _ = rig.process();
    }
    assert_eq!(tx(&rig), (1, 2, 0), "it sleeps, after reporting the packet");
}

#[test]
fn the_depth_of_a_queue_is_the_number_of_chains_not_taken() {
    let mut rig = Rig::around(device(VsockInnerBackend::new().unwrap(), Config::default()));
    rig.post(4);
    assert_eq!(rig.depths().rx, None, "the queue is not served");
    rig.activate();
    let _ = rig.process();
    rig.send(packet(Op::Reset, 1024, 80), b"");
    rig.send(packet(Op::Reset, 1024, 80), b"");
    rig.post_events(2, 8);
    let depths = rig.depths();
    assert_eq!(
        (depths.rx, depths.tx, depths.event),
        (Some(4), Some(2), Some(2))
    );
    let _ = rig.process();
    assert_eq!((rig.depths().rx, rig.depths().tx), (Some(4), Some(0)));
    // The queue of a driver that violates the rules has no depth.
    let beyond = rig.tx.available().wrapping_add(SIZE + 1);
    rig.tx.set_available(&rig.memory, beyond);
    assert_eq!(rig.depths().tx, None);
    rig.device.reset(rig.now);
    assert_eq!(rig.depths().rx, None);
}
