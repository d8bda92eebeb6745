// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::time::Duration;

use vsock_driver::bytes;
use vsock_inner::VsockInnerBackend;
use vsock_proto::Op;

use crate::rig::{Rig, has_more, packet};

/// Publishes the event to the guest, while a reply waits for it.
fn told(rig: &mut Rig) {
    rig.post(4);
    rig.device.transport_reset(rig.now);
    rig.send(packet(Op::Request, 1024, 80), b"");
}

#[test]
fn t105_a_transport_reset_needs_one_buffer() {
    let mut rig = Rig::new();
    rig.post_events(2, 8);
    vsock_driver::filled(&rig.memory, 0xc000, &[0xff; 8]);
    rig.device.transport_reset(rig.now);
    let outcome = rig.process();
    assert!(outcome.notify_event && !outcome.notify_rx && !outcome.notify_tx);
    assert_eq!(rig.event.used(&rig.memory), [(0, 4)]);
    assert_eq!(bytes(&rig.memory, 0xc000, 5), [0, 0, 0, 0, 0xff]);
    assert_eq!(rig.device.counters().transport_resets, 1);
}

#[test]
fn t105_without_a_buffer_it_is_remembered() {
    for mut rig in [Rig::new(), Rig::event_idx()] {
        rig.device.transport_reset(rig.now);
        assert!(!rig.process().notify_event);
        assert!(!rig.process().notify_event);
        rig.post_events(1, 4);
        assert!(rig.process().notify_event);
        assert!(!rig.process().notify_event);
        assert_eq!(rig.event.used(&rig.memory), [(0, 4)]);
    }
}

#[test]
fn t105_a_buffer_too_small_is_returned_and_the_next_one_taken() {
    let mut rig = Rig::new();
    rig.post_events(1, 3);
    rig.post_events(1, 4);
    rig.device.transport_reset(rig.now);
    let _ = rig.process();
    assert_eq!(rig.event.used(&rig.memory), [(0, 0), (1, 4)]);
    assert_eq!(rig.device.counters().unusable_buffers, 1);
}

#[test]
fn t106_no_packet_is_delivered_until_the_guest_has_seen_the_event() {
    for mut rig in [Rig::new(), Rig::event_idx()] {
        rig.post_events(2, 8);
        told(&mut rig);
        let outcome = rig.process();
        assert!(outcome.notify_tx, "the device still takes packets");
        assert!(!outcome.notify_rx && !has_more(outcome));
        rig.post(4);
        assert!(!rig.process().notify_rx);
        rig.post_events(1, 8);
        assert!(rig.process().notify_rx);
        assert_eq!(rig.received().len(), 1);
    }
}

#[test]
fn t106_an_event_that_was_not_published_holds_packets_back_for_a_bounded_time() {
    for mut rig in [Rig::new(), Rig::event_idx()] {
        told(&mut rig);
        rig.now = rig.now.saturating_add(Duration::from_secs(9));
        let outcome = rig.process();
        assert!(!outcome.notify_rx && !has_more(outcome));
        assert_eq!(rig.tx.used(&rig.memory), [], "no reply is late");
        let until = rig.device.deadline().unwrap();
        assert_eq!(until.since(rig.now), Duration::from_millis(100));
        rig.device.on_timeout(rig.now);
        assert!(!rig.process().notify_rx, "packets still wait");

        rig.now = until;
        rig.device.on_timeout(rig.now);
        assert!(rig.process().notify_rx);
        assert_eq!(rig.received().len(), 1);
        // Packets wait once; the event stays pending.
        assert_eq!(rig.device.deadline(), None);
        rig.send(packet(Op::Request, 1025, 80), b"");
        let _ = rig.process();
        assert_eq!(rig.received().len(), 1);
        rig.post_events(1, 8);
        assert!(rig.process().notify_event);
    }
}

#[test]
fn t106_packets_before_the_buffer_for_the_event_are_served_after_it() {
    let backend = VsockInnerBackend::new().unwrap();
    let _listener = backend.listen(80).unwrap();
    let mut rig = Rig::with(backend, 0);
    told(&mut rig);
    rig.settle();
    assert_eq!(rig.received(), []);
    rig.post_events(1, 8);
    assert!(rig.process().notify_event);
    rig.post_events(1, 8);
    rig.settle();
    let packets = rig.received();
    assert_eq!(packets.len(), 1);
    assert_eq!(packets[0].0.op, u16::from(Op::Response));
    assert_eq!(rig.device.muxer().connections().count(), 1);
}

#[test]
fn t106_each_pending_event_is_waited_for() {
    let mut rig = Rig::new();
    for _ in 0..2 {
        told(&mut rig);
        assert!(!rig.process().notify_rx);
        rig.wait_out_the_event();
        assert!(rig.process().notify_rx);
    }
}

#[test]
fn t106_a_reset_ends_the_waiting() {
    let mut rig = Rig::new();
    rig.post_events(1, 8);
    told(&mut rig);
    let _ = rig.process();
    rig.reload();
    // As many buffers as when the event was published. The ring does not show that these are other
    // ones.
    rig.post_events(1, 8);
    rig.post(4);
    rig.send(packet(Op::Request, 1024, 80), b"");
    let outcome = rig.process();
    assert!(outcome.notify_rx && !outcome.notify_event);
}

#[test]
fn t105_a_reset_cancels_a_pending_event() {
    let mut rig = Rig::new();
    rig.device.transport_reset(rig.now);
    let _ = rig.process();
    rig.reload();
    rig.post_events(1, 8);
    assert!(!rig.process().notify_event);
}

#[test]
fn t104_the_event_queue_asks_for_a_kick_after_its_available_buffers() {
    let mut rig = Rig::event_idx();
    rig.post_events(8, 8);
    rig.device.transport_reset(rig.now);
    let _ = rig.process();
    assert_eq!(rig.event.avail_event(&rig.memory), 8);
}

#[test]
fn t117_a_guest_that_never_takes_its_event_is_served_after_a_bounded_time() {
    let mut rig = Rig::new();
    rig.post_events(1, 8);
    told(&mut rig);
    let _ = rig.process();
    assert_eq!(rig.received(), []);
    let until = rig.device.deadline().unwrap();
    assert_eq!(until.since(rig.now), Duration::from_millis(500));
    rig.now = until;
    rig.device.on_timeout(rig.now);
    assert!(rig.process().notify_rx);
    assert_eq!(rig.received().len(), 1);
}
