// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Memory behind an IOMMU that restricts the device.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use vm_memory::{GuestAddress, GuestMemoryError};
use vsock_driver::{Descriptor, DriverQueue, bytes, filled, memory};
use vsock_muxer::Muxer;
use vsock_proto::{Config, GuestCid, Op, Tick};
use vsock_virtio::{DeviceFault, F_VERSION_1, FaultCause, Outcome, QueueName, Queues, VsockDevice};

use crate::looked_up::LookedUp;
use crate::rig::{SIZE, packet};

const F_ACCESS_PLATFORM: u64 = 1 << 33;
/// From this address on, nothing is mapped.
const END: u64 = 0x10_0000;
/// From this address on, the device can only read.
const READ_ONLY: u64 = 0x8_0000;

#[test]
fn t24_translation_is_asked_for_every_address_and_may_fail() {
    let cid = GuestCid::try_from(3).unwrap();
    let muxer = Muxer::new(cid, Config::builder().build().unwrap());
    let mut device = VsockDevice::<LookedUp>::builder(muxer)
        .transport_features(F_ACCESS_PLATFORM)
        .poll_budget(Duration::ZERO)
        .build();
    device
        .ack_features(F_VERSION_1 | F_ACCESS_PLATFORM)
        .unwrap();

    // The driver writes to translated addresses; the device gets untranslated ones.
    let physical = memory(&[(END, 0x10_0000)]);
    let [mut rx, mut tx] = [0x1000, 0x4000].map(|base| DriverQueue::new(base + END, SIZE));
    let as_seen = [0x1000, 0x4000].map(|base| DriverQueue::new(base, SIZE));
    let [mut rx_queue, mut tx_queue] = as_seen.each_ref().map(DriverQueue::queue);
    let mut queues = Queues {
        rx: &mut rx_queue,
        tx: &mut tx_queue,
        event: None,
    };

    let request = packet(Op::Request, 1024, 80).encode();
    filled(&physical, END + 0x2_0000, &request);
    for (head, addr) in [(0, END), (1, 0x2_0000), (2, u64::MAX - 50)] {
        tx.describe(&physical, head, Descriptor::readable(addr, 44));
        tx.offer(&physical, head);
    }
    for (head, addr) in [(0, READ_ONLY), (1, 0x3_0000)] {
        rx.describe(&physical, head, Descriptor::writable(addr, 100));
        rx.offer(&physical, head);
    }
    // Device addresses are 1 MiB below guest addresses, so an untranslated access fails.
    let rings = Rc::new(Cell::new(true));
    let has_rings = Rc::clone(&rings);
    let iommu = LookedUp::new(&physical, move |addr, access| {
        let ring = addr.0 < 0x1_0000;
        let denied = addr.0 >= END || (addr.0 >= READ_ONLY && access.has_write());
        if denied || (ring && !has_rings.get()) {
            return Err(GuestMemoryError::InvalidGuestAddress(addr));
        }
        Ok(GuestAddress(addr.0 + END))
    });
    device.activate(Tick::ZERO, &iommu, &mut queues).unwrap();
    let outcome = device.process(Tick::ZERO, &iommu, &mut queues).unwrap();
    assert!(outcome.notify_rx && outcome.notify_tx);
    assert_eq!(tx.used(&physical), [(0, 0), (1, 0), (2, 0)]);
    assert_eq!(rx.used(&physical), [(0, 0), (1, 44)]);
    assert_eq!(bytes(&physical, END + 0x3_0000 + 30, 1), [3], "an RST");
    assert_eq!(device.counters().malformed_packets, 2);
    assert_eq!(device.counters().unusable_buffers, 1);

    // Rings that are unmapped while the device uses them.
    rings.set(false);
    let fault = DeviceFault {
        queue: QueueName::Tx,
        cause: FaultCause::Memory,
    };
    let broken = device.process(Tick::ZERO, &iommu, &mut queues);
    assert_eq!(broken, Err(fault));
    device.reset(Tick::ZERO);
    let idle = device.process(Tick::ZERO, &iommu, &mut queues);
    assert_eq!(idle, Ok(Outcome::default()));
}
