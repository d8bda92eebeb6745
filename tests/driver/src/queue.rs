// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::sync::atomic::Ordering;

use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};

use crate::{Descriptor, Memory, filled};

/// A split virtqueue from the driver's side (virtio 1.3, 2.7).
#[derive(Clone, Debug)]
pub struct DriverQueue {
    base: u64,
    size: u16,
    /// Chains made available, a wrapping counter.
    available: u16,
    /// Chains seen as used, a wrapping counter.
    seen: u16,
}

impl DriverQueue {
    /// Creates a queue of `size` entries at `base`, which takes [`bytes`](Self::bytes).
    #[must_use]
    pub const fn new(base: u64, size: u16) -> Self {
        Self {
            base,
            size,
            available: 0,
            seen: 0,
        }
    }

    /// Returns a queue at the same place, with its counters at zero.
    #[must_use]
    pub const fn emptied(&self) -> Self {
        Self::new(self.base, self.size)
    }

    /// The most bytes that a queue of `size` entries takes.
    #[must_use]
    pub const fn bytes(size: u16) -> u64 {
        (16 + 2 + 8) * size as u64 + 32
    }

    /// Returns the device's side of the queue, configured and ready.
    #[must_use]
    pub fn queue(&self) -> Queue {
        let mut queue = Queue::new(self.size).expect("a power of two");
        let low = |addr: u64| u32::try_from(addr).expect("an address of 32 bits");
        queue.set_desc_table_address(Some(low(self.base)), Some(0));
        queue.set_avail_ring_address(Some(low(self.avail_ring())), Some(0));
        queue.set_used_ring_address(Some(low(self.used_ring())), Some(0));
        queue.set_ready(true);
        queue
    }

    /// Writes a descriptor into the table.
    pub fn describe(&self, memory: &Memory, index: u16, descriptor: Descriptor) {
        let addr = self.base + Descriptor::LEN * u64::from(index);
        filled(memory, addr, &descriptor.encode());
    }

    /// Writes descriptors into the table as a chain that begins at `head`.
    pub fn chain(&self, memory: &Memory, head: u16, pieces: &[Descriptor]) {
        for (index, piece) in (head..).zip(pieces) {
            let last = usize::from(index - head) + 1 == pieces.len();
            let piece = if last { *piece } else { piece.then(index + 1) };
            self.describe(memory, index, piece);
        }
    }

    /// Makes the chain at `head` available.
    pub fn offer(&mut self, memory: &Memory, head: u16) {
        let slot = u64::from(self.available % self.size);
        self.store(memory, self.avail_ring() + 4 + 2 * slot, head);
        self.set_available(memory, self.available.wrapping_add(1));
    }

    /// Publishes an available index, right or wrong.
    pub fn set_available(&mut self, memory: &Memory, index: u16) {
        self.available = index;
        self.store(memory, self.avail_ring() + 2, index);
    }

    /// Sets both sides of an idle queue to a state in which `count` chains have passed.
    pub fn go_on_at(&mut self, memory: &Memory, queue: &mut Queue, count: u16) {
        self.seen = count;
        self.set_available(memory, count);
        self.store(memory, self.used_ring() + 2, count);
        queue.set_next_avail(count);
        queue.set_next_used(count);
    }

    /// Returns the chains used since the last call, as head and length.
    pub fn used(&mut self, memory: &Memory) -> Vec<(u32, u32)> {
        self.used_at_most(memory, u16::MAX)
    }

    /// Returns the first `most` of them.
    pub fn used_at_most(&mut self, memory: &Memory, most: u16) -> Vec<(u32, u32)> {
        let until = self.used_index(memory);
        let mut used = Vec::new();
        while self.seen != until && used.len() < most.into() {
            let at = self.used_ring() + 4 + 8 * u64::from(self.seen % self.size);
            let field = |at| memory.read_obj(GuestAddress(at)).map(u32::from_le);
            let head = field(at).expect("a queue in memory");
            let len = field(at + 4).expect("a queue in memory");
            used.push((head, len));
            self.seen = self.seen.wrapping_add(1);
        }
        used
    }

    /// Requests a notification by `VIRTIO_F_EVENT_IDX` when the device has used the chain with this
    /// index.
    pub fn set_used_event(&self, memory: &Memory, index: u16) {
        let addr = self.avail_ring() + 4 + 2 * u64::from(self.size);
        self.store(memory, addr, index);
    }

    /// Disables or enables notifications without `VIRTIO_F_EVENT_IDX`.
    pub fn set_no_interrupt(&self, memory: &Memory, quiet: bool) {
        self.store(memory, self.avail_ring(), u16::from(quiet));
    }

    /// Returns the available index at which the device wants a kick, with `VIRTIO_F_EVENT_IDX`.
    #[must_use]
    pub fn avail_event(&self, memory: &Memory) -> u16 {
        self.load(memory, self.used_ring() + 4 + 8 * u64::from(self.size))
    }

    /// Returns whether the device wants kicks, without `VIRTIO_F_EVENT_IDX`.
    #[must_use]
    pub fn wants_kicks(&self, memory: &Memory) -> bool {
        self.load(memory, self.used_ring()) == 0
    }

    /// Chains made available so far, a wrapping counter.
    #[must_use]
    pub const fn available(&self) -> u16 {
        self.available
    }

    /// Chains seen as used so far, a wrapping counter.
    #[must_use]
    pub const fn seen(&self) -> u16 {
        self.seen
    }

    /// The device's used index.
    #[must_use]
    pub fn used_index(&self, memory: &Memory) -> u16 {
        self.load(memory, self.used_ring() + 2)
    }

    /// The number of entries.
    #[must_use]
    pub const fn size(&self) -> u16 {
        self.size
    }

    const fn avail_ring(&self) -> u64 {
        self.base + Descriptor::LEN * self.size as u64
    }

    const fn used_ring(&self) -> u64 {
        (self.avail_ring() + 6 + 2 * self.size as u64).next_multiple_of(4)
    }

    fn store(&self, memory: &Memory, addr: u64, value: u16) {
        // ORDER: Release; partner: the device's acquire of the index, possibly on another thread.
        let stored = memory.store(value.to_le(), GuestAddress(addr), Ordering::Release);
        // The device would refuse a queue at an odd address.
        let stored = stored.or_else(|_| memory.write_obj(value.to_le(), GuestAddress(addr)));
        stored.expect("a queue in memory");
    }

    fn load(&self, memory: &Memory, addr: u64) -> u16 {
        // ORDER: Acquire; partner: the device's release of the index.
        let loaded = memory.load(GuestAddress(addr), Ordering::Acquire);
        let loaded = loaded.or_else(|_| memory.read_obj(GuestAddress(addr)));
        u16::from_le(loaded.expect("a queue in memory"))
    }
}
