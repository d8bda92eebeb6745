// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The smallest and the largest queue, until every index has wrapped around.

use vsock_driver::{Descriptor, DriverQueue, filled, memory};
use vsock_inner::VsockInnerBackend;
use vsock_proto::{Config, Op, Tick};
use vsock_virtio::{F_EVENT_IDX, F_VERSION_1, Queues};

use crate::rig::{device, has_more, packet};

/// Packets from different ports, because the device answers each port once in a call.
const PACKETS: u64 = 0x50_0000;
const BUFFER: u64 = 0x71_0000;

/// Sends packets without a receiver, a full queue at a time, and takes the replies.
fn exchange(size: u16, features: u64) {
    let backend = VsockInnerBackend::new().unwrap();
    let mut device = device(backend, Config::builder().build().unwrap());
    device.ack_features(F_VERSION_1 | features).unwrap();
    let memory = memory(&[(0, 0x80_0000)]);
    let mut rings = [0x1000, 0x20_0000, 0x40_0000].map(|base| DriverQueue::new(base, size));
    let [mut rx_queue, mut tx_queue, mut event_queue] = rings.each_ref().map(DriverQueue::queue);
    let mut queues = Queues {
        rx: &mut rx_queue,
        tx: &mut tx_queue,
        event: Some(&mut event_queue),
    };
    device.activate(Tick::ZERO, &memory, &mut queues).unwrap();
    let [rx, tx, _] = &mut rings;
    for head in 0..size {
        let addr = PACKETS + 48 * u64::from(head);
        filled(
            &memory,
            addr,
            &packet(Op::ReadWrite, head.into(), 8).encode(),
        );
        tx.describe(&memory, head, Descriptor::readable(addr, 44));
        rx.describe(&memory, head, Descriptor::writable(BUFFER, 64));
    }
    for _ in 0..=u32::from(u16::MAX) / u32::from(size) + 1 {
        for head in 0..size {
            rx.offer(&memory, head);
            tx.offer(&memory, head);
        }
        let mut notified = [false; 2];
        while {
            let outcome = device.process(Tick::ZERO, &memory, &mut queues).unwrap();
            notified[0] |= outcome.notify_rx;
            notified[1] |= outcome.notify_tx;
            has_more(outcome)
        } {}
        let heads = || 0..u32::from(size);
        let answered: Vec<_> = heads().map(|head| (head, 44)).collect();
        let sent: Vec<_> = heads().map(|head| (head, 0)).collect();
        assert!(rx.used(&memory) == answered, "each packet has an answer");
        assert!(tx.used(&memory) == sent, "each packet comes back");
        assert_eq!(notified, [true; 2]);
        for ring in [&*rx, &*tx] {
            let next = ring.available().wrapping_add(size).wrapping_sub(1);
            ring.set_used_event(&memory, next);
        }
    }
}

#[test]
fn t104_a_queue_of_one_entry_works_across_the_wrap_of_its_indices() {
    exchange(1, F_EVENT_IDX);
}

#[test]
fn t104_the_largest_queue_works_across_the_wrap_of_its_indices() {
    exchange(1 << 15, 0);
    exchange(1 << 15, F_EVENT_IDX);
}
