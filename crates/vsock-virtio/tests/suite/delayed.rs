// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Notifications that wait: their rig, and what is so of both queues.

mod buffers;
mod packets;

use std::io::{Read, Write};
use std::time::Duration;

use virtio_queue::{Queue, QueueT};
use vsock_backend_api::VsockStream;
use vsock_driver::{Descriptor, filled};
use vsock_inner::{VsockInnerBackend, VsockInnerStream};
use vsock_muxer::Muxer;
use vsock_proto::{Config, GuestCid, Header, Op, Tick};
use vsock_virtio::{F_EVENT_IDX, F_VERSION_1, Outcome, QueueName, VsockDevice};

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

/// A queue has its own size.
fn other_size(queue: &mut Queue) {
    queue.set_size(SIZE / 4);
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
    rig.device = next.device;
    rig.restore(&state).unwrap();
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
fn without_delays_nothing_waits() {
    let (mut rig, mut host) = with_unread_of(|backend| Rig::with(backend, 0));
    let _ = asks(&mut rig, &mut host, 0);
    assert!(answer(&mut rig, &mut host, 1).notify_rx);
    rig.send(ignored(), b"");
    assert!(rig.process().notify_tx);
    assert_eq!(rig.device.deadline(), None);
}
