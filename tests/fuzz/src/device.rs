// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Whatever a guest writes into its memory, its descriptor tables and its rings, the device goes on, or
//! says that it cannot until it is reset.

use vsock_driver::{Descriptor, DriverRing, Memory, filled, memory};
use vsock_muxer::Muxer;
use vsock_proto::{Config, GuestCid, Header, Tick};
use vsock_virtio::{F_EVENT_IDX, F_VERSION_1, Queues, VsockDevice};

use crate::bytes::Bytes;

const SIZE: u16 = 16;
/// Two regions without a gap, and one behind a gap.
const REGIONS: [(u64, usize); 3] = [(0, 0x1_0000), (0x1_0000, 0x2_0000), (0x8_0000, 0x1_0000)];
const RINGS: [u64; 3] = [0x1000, 0x2000, 0x3000];
/// Where descriptors mostly point: across the seam of two regions, and up to the gap.
const PLACES: [u64; 4] = [0x4000, 0xffe0, 0x2_fff0, 0x8_0000];

/// Plays the bytes as what a guest does.
pub fn fuzz(data: &[u8]) {
    let mut data = Bytes(data);
    let Ok(guest) = GuestCid::try_from(3) else {
        return;
    };
    let Ok(config) = Config::builder().max_resets(8).build() else {
        return;
    };
    let mut device = VsockDevice::builder(Muxer::new(guest, config)).build();
    let memory = memory(&REGIONS);
    let first = data.byte();
    let features = F_VERSION_1 | if first & 1 == 0 { 0 } else { F_EVENT_IDX };
    device.ack_features(features).expect("they are offered");

    for life in 0..3_u64 {
        let mut rings = RINGS.map(|base| DriverRing::new(base, SIZE));
        let [mut rx, mut tx, mut event] = rings.each_ref().map(DriverRing::queue);
        let mut queues = Queues {
            rx: &mut rx,
            tx: &mut tx,
            event: (first & 2 == 0).then_some(&mut event),
        };
        let now = Tick::from_nanos(life);
        device
            .activate(now, &memory, &mut queues)
            .expect("it was reset, and the rings are in memory");
        while !data.is_empty() {
            if !step(&mut data, &memory, &mut rings, (&mut device, now)) {
                continue;
            }
            if device.process(now, &memory, &mut queues).is_err() {
                assert!(!device.is_active());
                break;
            }
            while device.next_action().is_some() {}
        }
        device.reset(now);
    }
}

/// One thing that a guest does; returns whether it kicks the device then.
fn step(
    data: &mut Bytes<'_>,
    memory: &Memory,
    rings: &mut [DriverRing; 3],
    (device, now): (&mut VsockDevice<Memory>, Tick),
) -> bool {
    let what = data.byte();
    let ring = &mut rings[usize::from(what >> 4) % 3];
    match what & 0xf {
        0..=4 => ring.describe(memory, data.short() % SIZE, descriptor(data)),
        5..=8 => ring.offer(memory, u16::from(data.byte()) % (SIZE + 1)),
        9 => ring.set_available(memory, data.short()),
        10 => ring.set_used_event(memory, data.short()),
        11 => filled(memory, PLACES[usize::from(data.byte()) % 2], &packet(data)),
        12 => filled(
            memory,
            0x1000 + u64::from(data.short()) % 0x3000,
            &[data.byte()],
        ),
        13 => device.transport_reset(now),
        _ => return true,
    }
    false
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
        next: u16::from(data.byte()) % (SIZE + 1),
    }
}

/// A header that is mostly right.
fn packet(data: &mut Bytes<'_>) -> [u8; Header::LEN] {
    let header = Header {
        src_cid: 3,
        dst_cid: 2,
        src_port: u32::from(data.byte()),
        dst_port: u32::from(data.byte()),
        len: data.number(),
        socket_type: 1,
        op: u16::from(data.byte()) % 9,
        flags: data.number(),
        buf_alloc: data.number(),
        fwd_cnt: data.number(),
    };
    header.encode()
}
