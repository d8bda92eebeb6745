// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Access to the fields of a split virtqueue in guest memory (virtio 1.3, 2.7). The device looks up
//! the queue's three parts once for each call.
//!
//! `virtio-queue` looks up each field by its guest address, several times for each chain. With
//! packets of a few KiB that took a quarter of the device's time. Its `Queue` still holds the state
//! of the queue; this module only replaces its access to guest memory.

use std::sync::atomic::{Ordering, fence};

use virtio_queue::desc::split::Descriptor;
use virtio_queue::{Queue, QueueT};
use vm_memory::{
    Address, ByteValued, Bytes, GuestAddress, GuestMemory, Permissions, VolatileMemory,
};

use crate::scatter::Slice;

/// A field of a queue is not in guest memory.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Inaccessible;

/// The fields with which both sides publish chains and suppress notifications. All counts of chains
/// wrap around.
pub(crate) trait SharedFields {
    /// Reads how many chains the driver has made available.
    fn available_index(&self, order: Ordering) -> Result<u16, Inaccessible>;
    /// Reads the flags with which the driver suppresses interrupts.
    fn available_flags(&self, order: Ordering) -> Result<u16, Inaccessible>;
    /// Reads for which used chain the driver wants an interrupt.
    fn used_event(&self, order: Ordering) -> Result<u16, Inaccessible>;
    /// Sets the flags with which the device suppresses kicks.
    fn set_used_flags(&self, flags: u16, order: Ordering) -> Result<(), Inaccessible>;
    /// Sets for which available chain the device wants a kick.
    fn set_avail_event(&self, count: u16, order: Ordering) -> Result<(), Inaccessible>;
    /// Orders all accesses before the fence before all accesses after it.
    fn full_fence(&self);
}

/// The size of a descriptor in bytes.
pub(crate) const DESCRIPTOR: usize = 16;

/// The three parts of a queue in guest memory.
pub(crate) struct Fields<'m, M: GuestMemory> {
    descriptors: Span<'m, M>,
    available: Span<'m, M>,
    used: Span<'m, M>,
    size: u16,
}

impl<'m, M: GuestMemory> Fields<'m, M> {
    pub(crate) fn new(mem: &'m M, queue: &Queue) -> Self {
        let [descriptors, available, used] =
            ranges(queue).map(|(start, len, access)| Span::new(mem, start, len, access));
        Self {
            descriptors,
            available,
            used,
            size: queue.size(),
        }
    }

    /// Whether all parts of the queue are in guest memory. `Queue::is_valid` checks this too, but
    /// logs each failure, so a guest could flood the log.
    pub(crate) fn are_in_memory(mem: &M, queue: &Queue) -> bool {
        let is_in = |(start, len, access)| mem.check_range(GuestAddress(start), len, access);
        ranges(queue).into_iter().all(is_in)
    }

    /// The number of entries of the queue.
    pub(crate) const fn size(&self) -> u16 {
        self.size
    }

    /// The queue's descriptor table.
    pub(crate) const fn descriptors(&self) -> &Span<'m, M> {
        &self.descriptors
    }

    /// Reads the head of the available chain number `count`.
    pub(crate) fn available_head(&self, count: u16) -> Result<u16, Inaccessible> {
        // ORDER: Relaxed; partner: the driver's store, which the acquire load of the index made
        // visible.
        self.available
            .load(4 + 2 * self.entry(count), Ordering::Relaxed)
    }

    /// Writes the element of the used chain number `count`: its head, and how many bytes the device
    /// wrote to it.
    pub(crate) fn set_used(&self, count: u16, head: u16, len: u32) -> Result<(), Inaccessible> {
        // `struct virtq_used_elem` as one little-endian integer: `le32 id`, then `le32 len`.
        let element = u64::from(head) | u64::from(len) << 32;
        self.used.write(4 + 8 * self.entry(count), element.to_le())
    }

    /// Publishes how many chains the device has used.
    pub(crate) fn set_used_index(&self, count: u16, order: Ordering) -> Result<(), Inaccessible> {
        self.used.store(2, count, order)
    }

    /// The ring's entry for chain number `count`. A queue of size 0 must not make this panic.
    fn entry(&self, count: u16) -> usize {
        usize::from(count % self.size.max(1))
    }
}

impl<M: GuestMemory> SharedFields for Fields<'_, M> {
    fn available_index(&self, order: Ordering) -> Result<u16, Inaccessible> {
        self.available.load(2, order)
    }

    fn available_flags(&self, order: Ordering) -> Result<u16, Inaccessible> {
        self.available.load(0, order)
    }

    fn used_event(&self, order: Ordering) -> Result<u16, Inaccessible> {
        self.available.load(4 + 2 * usize::from(self.size), order)
    }

    fn set_used_flags(&self, flags: u16, order: Ordering) -> Result<(), Inaccessible> {
        self.used.store(0, flags, order)
    }

    fn set_avail_event(&self, count: u16, order: Ordering) -> Result<(), Inaccessible> {
        self.used
            .store(4 + 8 * usize::from(self.size), count, order)
    }

    fn full_fence(&self) {
        // ORDER: SeqCst; partner: the driver's full barrier. See `suppression`.
        fence(Ordering::SeqCst);
    }
}

/// Address, length and access of the descriptor table, the available ring and the used ring. The
/// lengths include the `VIRTIO_F_EVENT_IDX` fields, negotiated or not, as in `Queue::is_valid`.
fn ranges(queue: &Queue) -> [(u64, usize, Permissions); 3] {
    let size = usize::from(queue.size());
    [
        (queue.desc_table(), DESCRIPTOR * size, Permissions::Read),
        (queue.avail_ring(), 6 + 2 * size, Permissions::Read),
        (queue.used_ring(), 6 + 8 * size, Permissions::Write),
    ]
}

/// A range of guest memory that the device accesses field by field.
pub(crate) struct Span<'m, M: GuestMemory> {
    mem: &'m M,
    start: GuestAddress,
    /// The whole range, if it is contiguous in this process. Otherwise (`None`) each access looks
    /// up its field. Memory behind an IOMMU always does that, because its mappings can change
    /// during a call.
    whole: Option<Slice<'m, M>>,
}

impl<'m, M: GuestMemory> Span<'m, M> {
    pub(crate) fn new(mem: &'m M, start: u64, len: usize, access: Permissions) -> Self {
        let start = GuestAddress(start);
        let whole = || {
            // `None` if there is an IOMMU.
            mem.physical_memory()?;
            let slice = mem.get_slices(start, len, access).ok()?.next()?.ok()?;
            // A shorter first piece: the range crosses memory regions.
            (slice.len() == len).then_some(slice)
        };
        Self {
            mem,
            start,
            whole: whole(),
        }
    }

    /// Reads the descriptor at this index of a table.
    pub(crate) fn descriptor(&self, index: u16) -> Result<Descriptor, Inaccessible> {
        self.read(DESCRIPTOR * usize::from(index))
    }

    fn load(&self, offset: usize, order: Ordering) -> Result<u16, Inaccessible> {
        let loaded = match &self.whole {
            Some(whole) => whole.load(offset, order).ok(),
            None => self.mem.load(self.address(offset)?, order).ok(),
        };
        loaded.map(u16::from_le).ok_or(Inaccessible)
    }

    fn store(&self, offset: usize, value: u16, order: Ordering) -> Result<(), Inaccessible> {
        let stored = match &self.whole {
            Some(whole) => whole.store(value.to_le(), offset, order).ok(),
            None => {
                let address = self.address(offset)?;
                self.mem.store(value.to_le(), address, order).ok()
            }
        };
        stored.ok_or(Inaccessible)
    }

    fn read<T: ByteValued>(&self, offset: usize) -> Result<T, Inaccessible> {
        let read = match &self.whole {
            Some(whole) => whole.get_ref(offset).ok().map(|field| field.load()),
            None => self.mem.read_obj(self.address(offset)?).ok(),
        };
        read.ok_or(Inaccessible)
    }

    fn write<T: ByteValued>(&self, offset: usize, value: T) -> Result<(), Inaccessible> {
        let written = match &self.whole {
            Some(whole) => whole.get_ref(offset).ok().map(|field| field.store(value)),
            None => self.mem.write_obj(value, self.address(offset)?).ok(),
        };
        written.ok_or(Inaccessible)
    }

    fn address(&self, offset: usize) -> Result<GuestAddress, Inaccessible> {
        self.start.checked_add(offset as u64).ok_or(Inaccessible)
    }
}
