// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Saved states: of this release, of other releases, and invalid ones.

use proptest::array::uniform3;
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any};
use proptest::sample::select;
use proptest::{prop_assert, prop_assert_eq, prop_oneof, proptest};
use virtio_queue::{Queue, QueueState};
use vsock_driver::Memory;
use vsock_inner::VsockInnerBackend;
use vsock_proto::{Config, Op};
use vsock_virtio::{
    ActivateError, DeviceState, F_EVENT_IDX, F_VERSION_1, RestoreError, VsockDevice,
};

use crate::rig::{Rig, SIZE, device, packet};

pub(crate) fn inactive() -> Rig {
    Rig::around(new_device())
}

fn new_device() -> VsockDevice<Memory> {
    device(VsockInnerBackend::new().unwrap(), Config::default())
}

/// Saves the guest in one VMM and restores it in another.
fn in_another_process(rig: &mut Rig) {
    let state = rig.device.state();
    let queues = rig.queues.each_ref().map(Queue::state);
    rig.device = new_device();
    rig.queues = queues.map(|queue| Queue::try_from(queue).unwrap());
    rig.watched.clear();
    rig.restore(&state).unwrap();
}

/// An event around a snapshot.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Step {
    /// The guest sends a packet and gets an RST.
    Send,
    Post,
    Process,
    Save,
}

/// Generates states that this release can save, and others with invalid numbers.
pub(crate) fn state() -> impl Strategy<Value = DeviceState> {
    let features = prop_oneof![
        Just(F_VERSION_1),
        Just(F_VERSION_1 | F_EVENT_IDX),
        any::<u64>()
    ];
    let port = prop_oneof![Just(1 << 30), any::<u32>()];
    (features, any::<bool>(), port, any::<u64>()).prop_map(|(features, active, port, count)| {
        let mut state = DeviceState::default();
        state.acked_features = features;
        state.active = active;
        state.muxer.next_host_port = port;
        state.muxer.connections = count;
        state
    })
}

/// Generates rings, half of which are almost valid.
fn queue() -> impl Strategy<Value = QueueState> {
    let size = || prop_oneof![Just(SIZE), any::<u16>()];
    let address = || {
        prop_oneof![
            (0..0x100_u64).prop_map(|block| block << 12),
            0x1ff_f000..0x200_0010_u64,
            any::<u64>()
        ]
    };
    let sizes = (size(), size());
    let indices = (any::<u16>(), any::<u16>());
    let addresses = (address(), address(), address());
    (sizes, indices, any::<bool>(), any::<bool>(), addresses).prop_map(
        |((max_size, size), (next_avail, next_used), event_idx_enabled, ready, addresses)| {
            QueueState {
                max_size,
                next_avail,
                next_used,
                event_idx_enabled,
                size,
                ready,
                desc_table: addresses.0,
                avail_ring: addresses.1,
                used_ring: addresses.2,
            }
        },
    )
}

#[test]
fn a_state_of_an_unknown_version_is_refused_without_effect() {
    let known = Rig::event_idx().device.state();
    for found in [0, DeviceState::VERSION + 1, u32::MAX] {
        let (mut other_device, mut other_muxer) = (known, known);
        other_device.version = found;
        other_muxer.muxer.version = found;
        for state in [other_device, other_muxer] {
            let mut rig = inactive();
            let before = rig.device.state();
            let Err(RestoreError::Version(error)) = rig.restore(&state) else {
                panic!("version {found} was taken");
            };
            assert_eq!((error.found, error.newest), (found, DeviceState::VERSION));
            assert_eq!(rig.device.state(), before);
            rig.restore(&known).unwrap();
        }
    }
}

#[test]
fn a_device_in_use_is_not_restored() {
    let saved = [DeviceState::default(), Rig::event_idx().device.state()];
    for state in saved {
        let mut rig = Rig::new();
        rig.post(4);
        let before = rig.device.state();
        let in_use = Err(RestoreError::Activate(ActivateError::InUse));
        assert_eq!(rig.restore(&state), in_use);
        assert_eq!(rig.device.state(), before);
        rig.send(packet(Op::Request, 1024, 80), b"");
        assert!(rig.process().notify_rx, "the guest is served as before");
    }
}

#[test]
fn a_paused_device_is_saved_as_an_active_one() {
    let mut rig = Rig::event_idx();
    let running = rig.device.state();
    rig.device.pause();
    assert_eq!(rig.device.state(), running);
    let mut restored = inactive();
    restored.restore(&rig.device.state()).unwrap();
    assert!(restored.device.is_active());
}

#[test]
fn t105_a_restored_device_sends_a_transport_reset_when_there_is_a_buffer() {
    for features in [0, F_EVENT_IDX] {
        let mut state = DeviceState::default();
        state.acked_features = F_VERSION_1 | features;
        state.active = true;
        let mut rig = inactive();
        rig.restore(&state).unwrap();
        let first = rig.process();
        assert!(
            first.notify_rx && first.notify_tx,
            "either may have been missed (T107)"
        );
        assert!(!first.notify_event);
        rig.post_events(1, 8);
        assert!(rig.process().notify_event);
        assert_eq!(rig.event.used(&rig.memory), [(0, 4)]);
    }
}

#[test]
fn t105_a_device_that_was_not_active_sends_no_event_after_its_restore() {
    let mut rig = inactive();
    rig.restore(&DeviceState::default()).unwrap();
    assert!(!rig.device.is_active());
    rig.device.ack_features(F_VERSION_1).unwrap();
    rig.post_events(1, 8);
    rig.start();
    assert_eq!(rig.event.used(&rig.memory), []);
}

proptest! {
    #[test]
    fn a_restored_state_is_saved_unchanged(state in state()) {
        let mut rig = inactive();
        let before = rig.device.state();
        match rig.restore(&state) {
            Ok(()) => {
                let after = rig.device.state();
                prop_assert_eq!(after.acked_features, state.acked_features);
                prop_assert_eq!(after.active, state.active);
                prop_assert!(rig.device.acked_features() & !rig.device.device_features() == 0);
            }
            Err(error) => {
                prop_assert!(matches!(error, RestoreError::Features(_)), "{}", error);
                prop_assert_eq!(rig.device.state(), before);
            }
        }
    }

    #[test]
    fn t107_whenever_a_device_is_saved_each_packet_is_taken_once_and_the_guest_gets_the_event(
        steps in vec(select(&[Step::Send, Step::Post, Step::Process, Step::Save]), 1..60),
        features in select(&[0, F_EVENT_IDX]),
    ) {
        let mut rig = Rig::with(VsockInnerBackend::new().unwrap(), features);
        let (mut sent, mut taken) = (Vec::new(), Vec::new());
        for step in steps.into_iter().chain([Step::Save, Step::Process]) {
            match step {
                Step::Send if sent.len() < usize::from(SIZE) => {
                    sent.push(rig.send(packet(Op::Request, 1024, 80), b""));
                }
                Step::Send => {}
                Step::Post => rig.post(1),
                Step::Process => drop(rig.process()),
                Step::Save => in_another_process(&mut rig),
            }
            taken.extend(rig.tx.used(&rig.memory).iter().map(|(head, _)| *head));
        }
        // The guest gets the event when it has a buffer for it, and once, however often it was
        // saved.
        prop_assert_eq!(rig.event.used(&rig.memory), []);
        rig.post_events(2, 8);
        prop_assert!(rig.process().notify_event);
        prop_assert_eq!(rig.event.used(&rig.memory), [(0, 4)]);
        // The guest has acknowledged the event, and has room for every reply.
        rig.post_events(1, 8);
        let offered = rig.rx.available().wrapping_sub(rig.rx.used_index(&rig.memory));
        rig.post(SIZE - offered);
        rig.settle();
        taken.extend(rig.tx.used(&rig.memory).iter().map(|(head, _)| *head));
        let sent: Vec<u32> = sent.into_iter().map(u32::from).collect();
        prop_assert_eq!(taken, sent);
    }

    #[test]
    fn t23_invalid_queues_and_states_are_refused_or_served(
        state in state(),
        queues in uniform3(queue()),
    ) {
        let mut rig = inactive();
        rig.post(4);
        rig.post_events(2, 8);
        rig.send(packet(Op::Request, 1024, 80), b"");
        for (queue, saved) in rig.queues.iter_mut().zip(queues) {
            if let Ok(restored) = Queue::try_from(saved) {
                *queue = restored;
            }
        }
        let before = rig.device.state();
        if rig.restore(&state).is_err() {
            prop_assert_eq!(rig.device.state(), before);
            return Ok(());
        }
        for _ in 0..4 {
            let _ = rig.try_process();
            rig.apply_actions();
        }
    }
}
