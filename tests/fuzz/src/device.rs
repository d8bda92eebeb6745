// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A device serves a guest that writes anything into its memory, descriptor tables and rings. The
//! device must continue, or report that it needs a reset.

use std::time::Duration;

use virtio_queue::QueueT;
use vsock_driver::{Descriptor, DriverQueue, Memory, filled};
use vsock_proto::Header;
use vsock_virtio::{F_EVENT_IDX, F_VERSION_1, Queues};

use crate::bytes::Bytes;
use crate::rig::{BUDGET, PAUSES, PLACES, RINGS, Rig, SIZES};

/// Places for parts of rings: on other rings, on payload, across a boundary, up to the gap.
const ODD_PLACES: [u32; 8] = [
    0x1000, 0x1100, 0x2000, 0x2124, 0x4000, 0xffc0, 0x2_ffc0, 0x8_0000,
];

/// Interprets the bytes as the actions of a guest.
pub fn fuzz(data: &[u8]) {
    let mut data = Bytes(data);
    let first = data.byte();
    let Some(mut rig) = Rig::<Memory>::new(first & 4 == 0, BUDGET, Vec::new()) else {
        return;
    };
    let features = F_VERSION_1 | if first & 1 == 0 { 0 } else { F_EVENT_IDX };
    rig.device
        .ack_features(features)
        .expect("all of these features are offered");
    for _ in 0..3 {
        rig.pass(Duration::from_nanos(1));
        let size = SIZES[usize::from(data.byte()) % SIZES.len()];
        let mut rings = RINGS.map(|base| DriverQueue::new(base, size));
        let [mut rx, mut tx, mut event] = rings.each_ref().map(DriverQueue::queue);
        displace(&mut rx, data.byte());
        displace(&mut tx, data.byte());
        let mut queues = Queues {
            rx: &mut rx,
            tx: &mut tx,
            event: (first & 2 == 0).then_some(&mut event),
        };
        let active = rig.device.activate(rig.now, &rig.seen, &mut queues);
        if active.is_err() {
            continue; // a ring is not in memory
        }
        while !data.is_empty() {
            if let Some(pause) = step(&mut data, &mut rig, &mut rings) {
                rig.pass(pause);
                if rig.turn(&mut queues).is_none() {
                    break;
                }
            }
        }
        rig.device.reset(rig.now);
    }
    rig.serves_again();
}

/// Moves a part of a queue away from where the driver expects it.
fn displace(queue: &mut virtio_queue::Queue, odd: u8) {
    let place = ODD_PLACES.get(usize::from(odd >> 4)).copied();
    match odd & 0xf {
        1 => queue.set_desc_table_address(place, None),
        2 => queue.set_avail_ring_address(place, None),
        3 => queue.set_used_ring_address(place, None),
        _ => {}
    }
}

/// Performs one action of the guest. If that is a kick, returns how long the guest waits before it.
fn step(
    data: &mut Bytes<'_>,
    rig: &mut Rig<Memory>,
    rings: &mut [DriverQueue; 3],
) -> Option<Duration> {
    let memory = &rig.memory;
    let what = data.byte();
    let ring = &mut rings[usize::from(what >> 4) % 3];
    match what & 0xf {
        0..=4 => ring.describe(memory, data.short() % ring.size(), descriptor(data)),
        5..=8 => ring.offer(memory, u16::from(data.byte()) % (ring.size() + 1)),
        9 => ring.set_available(memory, data.short()),
        10 => ring.set_used_event(memory, data.short()),
        11 => filled(memory, PLACES[usize::from(data.byte()) % 2], &packet(data)),
        12 => filled(
            memory,
            0x1000 + u64::from(data.short()) % 0x3000,
            &[data.byte()],
        ),
        13 => rig.device.transport_reset(rig.now),
        14 => return Some(Duration::ZERO),
        _ => return Some(PAUSES[usize::from(what >> 4) % PAUSES.len()]),
    }
    None
}

fn descriptor(data: &mut Bytes<'_>) -> Descriptor {
    let place = usize::from(data.byte());
    let addr = match PLACES.get(place % 8) {
        Some(place) => place + u64::from(data.byte()),
        None => u64::from(data.number()) << (place % 34),
    };
    Descriptor {
        addr,
        len: data.number(),
        flags: u16::from(data.byte()),
        next: u16::from(data.byte()) % 17,
    }
}

/// Makes a header that is mostly valid.
pub(crate) fn packet(data: &mut Bytes<'_>) -> [u8; Header::LEN] {
    let header = Header {
        src_cid: 3,
        dst_cid: 2,
        src_port: u32::from(data.byte() % 4),
        dst_port: u32::from(data.byte() % 4),
        len: data.number(),
        socket_type: 1,
        op: u16::from(data.byte()) % 9,
        flags: data.number(),
        buf_alloc: data.number(),
        fwd_cnt: data.number(),
    };
    header.encode()
}
