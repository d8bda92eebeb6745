// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The changes that a guest makes to its memory.

use vsock_driver::{Descriptor, DriverQueue, Memory, filled};
use vsock_proto::{Header, Op};

use crate::bytes::Bytes;
use crate::component::SERVED;
use crate::device::packet;
use crate::rig::RINGS;

/// Where headers and payload are. The second place crosses the boundary of two regions.
const PLACES: [u64; 4] = [0x4000, 0xffe0, 0x5000, 0x6000];
/// The most bytes of a descriptor, so that none reaches the guarded memory.
const LONGEST: u32 = 0x1_0000;

/// A change to memory.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Change {
    /// Sets a ring's available index.
    Available(usize, u16),
    /// Writes an entry of an available ring.
    Offer(usize, u16),
    /// Sets when the driver wants an interrupt.
    UsedEvent(usize, u16),
    /// Writes a descriptor.
    Describe(usize, u16, Descriptor),
    /// Writes a header.
    Header(u64, [u8; Header::LEN]),
    /// Writes a byte of a ring after the descriptor table.
    Byte(usize, u16, u8),
}

impl Change {
    pub(crate) fn read(data: &mut Bytes<'_>, indirect: bool) -> Self {
        let what = data.byte();
        let ring = usize::from(what >> 4) % 3;
        match what & 0xf {
            0..=2 => Self::Available(ring, data.short()),
            3..=4 => Self::Offer(ring, data.short()),
            5 => Self::UsedEvent(ring, data.short()),
            6..=9 => Self::Describe(ring, data.short(), descriptor(data, indirect)),
            10..=13 => Self::Header(place(data), packet(data)),
            _ => Self::Byte(ring, data.short(), data.byte()),
        }
    }

    pub(crate) fn apply(self, memory: &Memory, rings: &mut [DriverQueue; 3]) {
        match self {
            // Usually close to the previous index, because a distant one breaks the ring.
            Self::Available(ring, index) if index & 0xf00 != 0 => {
                let ring = &mut rings[ring];
                let index = ring.available().wrapping_add(index % (2 * ring.size()));
                ring.set_available(memory, index);
            }
            Self::Available(ring, index) => rings[ring].set_available(memory, index),
            Self::Offer(ring, head) => {
                let ring = &mut rings[ring];
                ring.offer(memory, head % (ring.size() + 1));
            }
            Self::UsedEvent(ring, index) => rings[ring].set_used_event(memory, index),
            Self::Describe(ring, index, descriptor) => {
                let ring = &rings[ring];
                ring.describe(memory, index % ring.size(), descriptor);
            }
            Self::Header(addr, header) => filled(memory, addr, &header),
            Self::Byte(ring, offset, byte) => {
                let size = rings[ring].size();
                let table = Descriptor::LEN * u64::from(size);
                let rest = DriverQueue::bytes(size) - table;
                let addr = RINGS[ring] + table + u64::from(offset) % rest;
                filled(memory, addr, &[byte]);
            }
        }
    }
}

fn place(data: &mut Bytes<'_>) -> u64 {
    PLACES[usize::from(data.byte()) % PLACES.len()]
}

fn descriptor(data: &mut Bytes<'_>, indirect: bool) -> Descriptor {
    let kinds = if indirect { 7 } else { 3 };
    Descriptor {
        addr: place(data) + u64::from(data.byte()),
        len: data.number() % (LONGEST + 1),
        flags: u16::from(data.byte()) & kinds,
        next: u16::from(data.byte()) % 65,
    }
}

/// Makes the driver send a packet that is mostly valid, on a chain of its own.
pub(crate) fn send(data: &mut Bytes<'_>, memory: &Memory, ring: &mut DriverQueue) {
    let (addr, len) = (place(data), data.number() % 4096);
    let op = match data.byte() % 8 {
        0..=2 => Op::Request,
        3..=5 => Op::ReadWrite,
        6 => Op::CreditUpdate,
        _ => Op::Shutdown,
    };
    let header = Header {
        src_cid: 3,
        dst_cid: 2,
        src_port: u32::from(data.byte() % 2),
        dst_port: SERVED + u32::from(data.byte() % 2),
        len: if op == Op::ReadWrite { len } else { 0 },
        socket_type: 1,
        op: op.into(),
        flags: 0,
        buf_alloc: 262_144,
        fwd_cnt: u32::from(data.short()),
    };
    filled(memory, addr, &header.encode());
    let head = ring.available() % ring.size();
    let length = 44 + header.len;
    ring.describe(memory, head, Descriptor::readable(addr, length));
    ring.offer(memory, head);
}

/// Makes the driver offer some buffers.
pub(crate) fn offer_buffers(data: &mut Bytes<'_>, memory: &Memory, ring: &mut DriverQueue) {
    for _ in 0..=data.byte() % 8 {
        let head = ring.available() % ring.size();
        let addr = 0x7000 + 0x800 * u64::from(head % 8);
        ring.describe(memory, head, Descriptor::writable(addr, 2048));
        ring.offer(memory, head);
    }
}
