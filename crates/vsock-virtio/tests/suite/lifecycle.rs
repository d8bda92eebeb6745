// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::time::Duration;
use virtio_queue::{Queue, QueueT};
use vsock_inner::VsockInnerBackend;
use vsock_proto::{Config, Op, SocketTypes};
use vsock_virtio::{
    ActivateError, DeviceFault, F_EVENT_IDX, F_VERSION_1, FaultCause, FeatureError, Outcome,
    QueueName, RestoreError, VsockDevice,
};

use crate::rig::{Rig, SIZE, device, has_more, muxer, packet};

const F_RING_PACKED: u64 = 1 << 34;

fn inactive() -> Rig {
    let backend = VsockInnerBackend::new().unwrap();
    Rig::around(device(backend, Config::default()))
}

#[test]
fn t10_config_reads_are_defined_at_any_offset_and_width() {
    let rig = inactive();
    let config = [3, 0, 0, 0, 0, 0, 0, 0_u8, 0, 0, 0, 0];
    for offset in 0..config.len() {
        for width in 0..config.len() - offset {
            let mut data = vec![0xff; width];
            rig.device.read_config(offset as u64, &mut data);
            assert_eq!(data, config[offset..offset + width]);
        }
    }
    let mut data = [0xff; 8];
    rig.device.read_config(u64::MAX, &mut data);
    assert_eq!(data, [0; 8]);
}

#[test]
fn t109_only_offered_features_can_be_accepted_and_all_are_optional() {
    let mut rig = inactive();
    let offered = rig.device.device_features();
    assert_eq!(offered & SocketTypes::F_SEQPACKET, 0);
    assert_ne!(offered & SocketTypes::F_STREAM, 0);
    rig.device.ack_features(F_VERSION_1).unwrap();
    let refused = rig.device.ack_features(F_RING_PACKED | F_EVENT_IDX);
    let unoffered = F_RING_PACKED;
    assert_eq!(refused, Err(FeatureError { unoffered }));
    assert_eq!(rig.device.acked_features(), F_VERSION_1);
    rig.device.ack_features(0).unwrap();
    rig.activate();
    assert!(rig.device.is_active());
}

#[test]
fn t102_a_kick_of_an_inactive_device_is_ignored() {
    let mut rig = inactive();
    rig.post(4);
    rig.send(packet(Op::Request, 1024, 80), b"");
    assert_eq!(rig.process(), Outcome::default());
    assert_eq!(rig.tx.used(&rig.memory), []);
}

#[test]
fn t101_a_reset_device_is_activated_again() {
    let mut rig = Rig::new();
    rig.post(4);
    for _ in 0..3 {
        rig.send(packet(Op::Request, 1024, 80), b"");
        let _ = rig.process();
        assert_eq!(rig.received().len(), 1, "an RST");
        rig.device.reset(rig.now);
        assert_eq!(rig.device.acked_features(), 0);
        rig.send(packet(Op::Request, 1025, 80), b"");
        assert_eq!(rig.process(), Outcome::default());
        rig.new_rings();
        rig.activate();
        rig.post(4);
    }
}

#[test]
fn t22_no_buffer_is_held_across_a_reset() {
    let mut rig = Rig::new();
    rig.post(8);
    rig.send(packet(Op::Request, 1024, 80), b"");
    let _ = rig.process();
    rig.device.reset(rig.now);
    rig.new_rings();
    let blank = vsock_driver::bytes(&rig.memory, 0x80_0000, 0x1_0000);
    rig.activate();
    rig.send(packet(Op::Request, 1024, 80), b"");
    let _ = rig.process();
    let after = vsock_driver::bytes(&rig.memory, 0x80_0000, 0x1_0000);
    assert!(
        blank == after,
        "a buffer of the previous driver was written"
    );
}

#[test]
fn an_active_device_is_not_activated_again() {
    let mut rig = Rig::new();
    assert_eq!(rig.try_activate(), Err(ActivateError::InUse));
}

#[test]
fn a_queue_outside_memory_is_refused() {
    for name in [QueueName::Rx, QueueName::Tx, QueueName::Event] {
        let mut rig = inactive();
        rig.queues[name.index()].set_used_ring_address(Some(0), Some(1));
        let refused = rig.try_activate();
        assert_eq!(refused, Err(ActivateError::InvalidQueue(name)));
        assert!(!rig.device.is_active());
    }
}

#[test]
fn t23_a_broken_ring_is_reported_until_the_reset() {
    for name in [QueueName::Rx, QueueName::Tx, QueueName::Event] {
        let mut rig = Rig::new();
        rig.device.transport_reset(rig.now);
        rig.send(packet(Op::Request, 1024, 80), b"");
        let memory = rig.memory.clone();
        rig.ring(name).set_available(&memory, SIZE + 9);
        let cause = FaultCause::AvailIndex;
        let fault = DeviceFault { queue: name, cause };
        assert!(fault.to_string().contains(&cause.to_string()), "{fault}");
        if name != QueueName::Event {
            assert_eq!(rig.try_process(), Ok(Outcome::default()));
            rig.wait_out_the_event();
        }
        assert_eq!(rig.try_process(), Err(fault));
        assert_eq!(rig.try_process(), Err(fault));
        assert!(!rig.device.is_active());
        rig.device.reset(rig.now);
        rig.new_rings();
        rig.start();
        assert_eq!(rig.process(), Outcome::default());
    }
}

#[test]
fn t107_a_restored_device_serves_the_chains_in_its_queues() {
    let mut old = Rig::event_idx();
    old.post(4);
    old.send(packet(Op::Request, 1024, 80), b"");
    let _ = old.process();
    old.send(packet(Op::Request, 1025, 81), b"");
    let state = old.device.state();

    let mut new = inactive();
    (new.memory, new.device_memory) = (old.memory, old.device_memory);
    (new.rx, new.tx, new.event) = (old.rx, old.tx, old.event);
    let saved = old.queues.each_ref().map(Queue::state);
    new.queues = saved.map(|queue| Queue::try_from(queue).unwrap());
    new.post_events(1, 8);
    new.restore(&state).unwrap();
    assert_eq!(new.device.state(), state);
    assert!(new.device.is_active());
    let outcome = new.process();
    assert!(outcome.notify_event);
    assert_eq!(new.device.counters().transport_resets, 1);
    assert_eq!(new.queues[2].next_avail(), 1);
    assert!(
        new.device.next_action().is_some(),
        "the backend must be watched"
    );
    assert_eq!(new.event.used(&new.memory), [(0, 4)]);
    assert_eq!(new.tx.used(&new.memory).len(), 2);
    // Once the guest has seen the reset, it gets the reply.
    new.post_events(1, 8);
    let _ = new.process();
    assert_eq!(new.received().len(), 2);
}

#[test]
fn a_device_that_offers_fewer_features_is_not_restored() {
    let mut state = Rig::new().device.state();
    state.acked_features |= F_RING_PACKED;
    let refused = inactive().restore(&state);
    assert!(matches!(refused, Err(RestoreError::Features(_))));
}

#[test]
fn a_budget_of_zero_serves_packet_by_packet() {
    let muxer = muxer(VsockInnerBackend::new().unwrap());
    let device = VsockDevice::builder(muxer)
        .budget(0)
        .poll_budget(Duration::ZERO);
    let mut rig = Rig::started(device.build(), 0);
    rig.post(4);
    rig.post_events(1, 8);
    rig.device.transport_reset(rig.now);
    for port in [80, 81] {
        rig.send(packet(Op::Request, 1024, port), b"");
    }
    let calls = (0..8).take_while(|_| has_more(rig.process())).count();
    assert_eq!(rig.tx.used(&rig.memory).len(), 2);
    assert_eq!(rig.event.used(&rig.memory), [(0, 4)]);
    assert!((1..8).contains(&calls), "{calls}");
}

#[test]
fn a_restore_that_fails_changes_nothing() {
    let state = Rig::event_idx().device.state();
    let mut rig = inactive();
    rig.device.ack_features(F_VERSION_1).unwrap();
    rig.queues[0].set_ready(false);
    let refused = rig.restore(&state);
    assert!(matches!(refused, Err(RestoreError::Activate(_))));
    assert_eq!(rig.device.acked_features(), F_VERSION_1);
    rig.queues[0].set_ready(true);
    rig.activate();
    assert!(!rig.queues[0].event_idx_enabled());
}
