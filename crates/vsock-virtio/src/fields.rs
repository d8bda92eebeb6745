// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The fields of a split virtqueue in guest memory (virtio 1.3, 2.7), whose three parts are looked
//! up once for a call.
//!
//! `virtio-queue` looks each field up by its guest address, several times for each chain: for
//! packets of a few KiB that took a quarter of the device's time. Its `Queue` remains what a
//! queue *is*; this is how the device comes at the fields.

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

/// The fields of a queue by which both sides tell each other of chains, and whether to notify.
pub(crate) trait SharedFields {
    /// How many chains have been made available, in wrapping counting.
    fn available_index(&self, order: Ordering) -> Result<u16, Inaccessible>;
    /// The flags by which the driver suppresses interrupts.
    fn available_flags(&self, order: Ordering) -> Result<u16, Inaccessible>;
    /// At which used chain the driver wants to be interrupted.
    fn used_event(&self, order: Ordering) -> Result<u16, Inaccessible>;
    /// Sets the flags by which the device suppresses kicks.
    fn set_used_flags(&self, flags: u16, order: Ordering) -> Result<(), Inaccessible>;
    /// Sets at which available chain the device wants a kick.
    fn set_avail_event(&self, count: u16, order: Ordering) -> Result<(), Inaccessible>;
    /// Orders every access before it and every access after it.
    fn full_fence(&self);
}

/// Bytes of a descriptor.
pub(crate) const DESCRIPTOR: usize = 16;

/// The three parts of a queue, at whose fields one looks.
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

    /// Whether all parts of the queue lie in guest memory. `Queue::is_valid` says that as well, but
    /// writes to the log if they do not, as often as the guest lets it.
    pub(crate) fn are_in_memory(mem: &M, queue: &Queue) -> bool {
        let lies_in = |(start, len, access)| mem.check_range(GuestAddress(start), len, access);
        ranges(queue).into_iter().all(lies_in)
    }

    /// Entries of the queue.
    pub(crate) const fn size(&self) -> u16 {
        self.size
    }

    /// The queue's table of descriptors.
    pub(crate) const fn descriptors(&self) -> &Span<'m, M> {
        &self.descriptors
    }

    /// The head of the chain that is counted so.
    pub(crate) fn available_head(&self, count: u16) -> Result<u16, Inaccessible> {
        // ORDER: Relaxed; partner: the driver's store, which the acquire of the index has seen.
        self.available
            .load(4 + 2 * self.entry(count), Ordering::Relaxed)
    }

    /// Notes a chain as the used one that is counted so, with what was written to it.
    pub(crate) fn set_used(&self, count: u16, head: u16, len: u32) -> Result<(), Inaccessible> {
        let element = u64::from(head) | u64::from(len) << 32;
        self.used.write(4 + 8 * self.entry(count), element.to_le())
    }

    /// Publishes how many chains have been used, in wrapping counting.
    pub(crate) fn set_used_index(&self, count: u16, order: Ordering) -> Result<(), Inaccessible> {
        self.used.store(2, count, order)
    }

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
        // ORDER: SeqCst; partner: the driver's full barrier; see `suppression`.
        fence(Ordering::SeqCst);
    }
}

/// Where the descriptors, the available and the used ring are, how long, and what the device does
/// with them. The rings have the fields of `VIRTIO_F_EVENT_IDX`, as in `Queue::is_valid`.
fn ranges(queue: &Queue) -> [(u64, usize, Permissions); 3] {
    let size = usize::from(queue.size());
    [
        (queue.desc_table(), DESCRIPTOR * size, Permissions::Read),
        (queue.avail_ring(), 6 + 2 * size, Permissions::Read),
        (queue.used_ring(), 6 + 8 * size, Permissions::Write),
    ]
}

/// A range of guest memory, at which one looks field by field.
pub(crate) struct Span<'m, M: GuestMemory> {
    mem: &'m M,
    start: GuestAddress,
    /// All of it, if it lies in one piece. `None`: each field is looked up. So it is behind an
    /// IOMMU as well, whose answer may change meanwhile.
    whole: Option<Slice<'m, M>>,
}

impl<'m, M: GuestMemory> Span<'m, M> {
    pub(crate) fn new(mem: &'m M, start: u64, len: usize, access: Permissions) -> Self {
        let start = GuestAddress(start);
        let whole = || {
            mem.physical_memory()?;
            let slice = mem.get_slices(start, len, access).ok()?.next()?.ok()?;
            (slice.len() == len).then_some(slice)
        };
        Self {
            mem,
            start,
            whole: whole(),
        }
    }

    /// The descriptor with this index of a table.
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
