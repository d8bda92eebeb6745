// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Guest memory in which the parts of a queue have been found already.
//!
//! A queue's fields are looked at several times for each chain, and `virtio-queue` looks each of them up by
//! its address: for a packet of a few KiB that costs as much as all the rest. Here the three parts are
//! looked up once for a call of the device.

use std::iter::FusedIterator;

use virtio_queue::{Queue, QueueT};
use vm_memory::bitmap::{BS, BitmapSlice};
use vm_memory::guest_memory::{GuestMemorySliceIterator, Result};
use vm_memory::{GuestAddress, GuestMemory, Permissions, VolatileSlice};

use crate::scatter::Slice;

/// See the documentation of the module. For `virtio-queue` it is memory as any other.
pub(crate) struct Translated<'m, M: GuestMemory> {
    mem: &'m M,
    parts: [Option<Part<'m, M>>; 3],
}

/// A part of a queue that lies in one piece.
struct Part<'m, M: GuestMemory> {
    start: u64,
    slice: Slice<'m, M>,
}

impl<'m, M: GuestMemory> Translated<'m, M> {
    /// Looks for the parts of a queue, if it is set up. What is not in one piece of memory will be looked up
    /// each time, and so is all of it behind an IOMMU, whose answer may change.
    pub(crate) fn new(mem: &'m M, queue: &Queue) -> Self {
        if !queue.ready() || mem.physical_memory().is_none() {
            let parts = [None, None, None];
            return Self { mem, parts };
        }
        // With the fields of `VIRTIO_F_EVENT_IDX` (virtio 1.3, 2.7).
        let size = usize::from(queue.size());
        let parts = [
            (queue.desc_table(), 16 * size, Permissions::Read),
            (queue.avail_ring(), 6 + 2 * size, Permissions::Read),
            (queue.used_ring(), 6 + 8 * size, Permissions::Write),
        ];
        Self {
            mem,
            parts: parts.map(|(start, len, access)| Part::find(mem, start, len, access)),
        }
    }

    fn found(&self, addr: GuestAddress, len: usize) -> Option<Slice<'m, M>> {
        self.parts.iter().flatten().find_map(|part| {
            let offset = usize::try_from(addr.0.checked_sub(part.start)?).ok()?;
            part.slice.subslice(offset, len).ok()
        })
    }
}

impl<'m, M: GuestMemory> Part<'m, M> {
    fn find(mem: &'m M, start: u64, len: usize, access: Permissions) -> Option<Self> {
        let mut slices = mem.get_slices(GuestAddress(start), len, access).ok()?;
        let slice = slices.next()?.ok()?;
        (slice.len() == len).then_some(Self { start, slice })
    }
}

impl<'m, M: GuestMemory> GuestMemory for Translated<'m, M> {
    type PhysicalMemory = M::PhysicalMemory;
    // A slice of a bitmap is its own slice, however long it is borrowed.
    type Bitmap = BS<'m, M::Bitmap>;

    fn check_range(&self, addr: GuestAddress, count: usize, access: Permissions) -> bool {
        self.mem.check_range(addr, count, access)
    }

    #[inline]
    fn get_slices<'a>(
        &'a self,
        addr: GuestAddress,
        count: usize,
        access: Permissions,
    ) -> Result<impl GuestMemorySliceIterator<'a, BS<'a, Self::Bitmap>>> {
        match self.found(addr, count) {
            Some(slice) => Ok(Slices::Found(Some(slice))),
            None => Ok(Slices::Other(self.mem.get_slices(addr, count, access)?)),
        }
    }
}

/// One slice that was known, or those of the memory.
enum Slices<'a, B, I> {
    Found(Option<VolatileSlice<'a, B>>),
    Other(I),
}

impl<'a, 'm: 'a, B, I> Iterator for Slices<'a, B, I>
where
    B: BitmapSlice,
    I: Iterator<Item = Result<VolatileSlice<'m, B>>>,
{
    type Item = Result<VolatileSlice<'a, B>>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Found(slice) => slice.take().map(Ok),
            Self::Other(slices) => match slices.next()? {
                Ok(slice) => Some(Ok(slice)),
                Err(error) => Some(Err(error)),
            },
        }
    }
}

impl<'a, 'm: 'a, B, I> FusedIterator for Slices<'a, B, I>
where
    B: BitmapSlice,
    I: FusedIterator<Item = Result<VolatileSlice<'m, B>>>,
{
}

impl<'a, 'm: 'a, B, I> GuestMemorySliceIterator<'a, B> for Slices<'a, B, I>
where
    B: BitmapSlice,
    I: FusedIterator<Item = Result<VolatileSlice<'m, B>>>,
{
}
