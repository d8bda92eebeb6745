// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A block of bytes, and the link to the next one.

use std::alloc::{Layout, alloc, handle_alloc_error};
use std::ptr::NonNull;

use crate::sync::{BLOCK_BYTES, Bytes, Shared};

/// Where the next block is: written by the writer before it publishes, once for each round, then
/// read by the reader.
#[derive(Debug)]
pub(crate) struct Link(Shared<Option<NonNull<Block>>>);

// SAFETY: a block may be freed by any thread, and every access to a link is argued where it is
// made.
unsafe impl Send for Link {}
// SAFETY: as above.
unsafe impl Sync for Link {}

impl Link {
    pub(super) fn empty() -> Self {
        Self(Shared::new(None))
    }

    /// # Safety
    ///
    /// The last write of the link must have happened before, and no other thread may write it now.
    pub(super) unsafe fn get(&self) -> Option<NonNull<Block>> {
        // SAFETY: by the caller's promise.
        unsafe { self.0.get() }
    }

    /// # Safety
    ///
    /// No other thread may read or write the link now.
    pub(super) unsafe fn set(&self, block: Option<NonNull<Block>>) {
        // SAFETY: by the caller's promise.
        unsafe { self.0.set(block) }
    }
}

/// Header and bytes: four pages, so that the kernel can have them back one by one.
#[derive(Debug)]
#[repr(C, align(4096))]
pub(crate) struct Block {
    next: Link,
    bytes: Bytes,
}

impl Block {
    pub(super) const BYTES: usize = BLOCK_BYTES;

    /// This number of blocks is allocated in one call. Pages that are not touched cost nothing.
    #[cfg(not(all(test, loom)))]
    const SLAB: usize = 64;
    #[cfg(all(test, loom))]
    const SLAB: usize = 1;

    /// Makes some blocks, whose bytes are not touched. They are never freed, but can be
    /// [cooled](Self::cool).
    pub(super) fn allocate() -> impl Iterator<Item = NonNull<Self>> {
        let layout = Layout::new::<[Self; Self::SLAB]>();
        // SAFETY: the layout has a size above zero.
        let memory = unsafe { alloc(layout) };
        let Some(memory) = NonNull::new(memory) else {
            handle_alloc_error(layout)
        };
        let first = memory.cast::<Self>();
        // SAFETY: that number of blocks was allocated, one after the other.
        (0..Self::SLAB).map(move |at| unsafe { first.add(at) })
    }

    /// Makes memory from [`allocate`](Self::allocate), cooled or not, a block with an empty link.
    ///
    /// # Safety
    ///
    /// The caller alone may use the block.
    #[cfg(not(all(test, loom)))]
    pub(super) unsafe fn initialise(block: NonNull<Self>) {
        // SAFETY: the memory is large enough, and the caller's alone.
        let link = unsafe { &raw mut (*block.as_ptr()).next };
        // SAFETY: as above. The bytes may stay as they are: they are `MaybeUninit`.
        unsafe { link.write(Link::empty()) }
    }

    /// # Safety
    ///
    /// The caller alone may use the block.
    #[cfg(all(test, loom))]
    pub(super) unsafe fn initialise(block: NonNull<Self>) {
        let fresh = Self {
            next: Link::empty(),
            bytes: Bytes::new(),
        };
        // SAFETY: the memory is large enough, and the caller's alone.
        unsafe { block.as_ptr().write(fresh) }
    }

    /// Gives the pages of unused blocks back to the kernel; the addresses stay ours.
    ///
    /// # Safety
    ///
    /// The blocks may not be used any more, until they are initialised again.
    #[cfg(not(all(test, loom)))]
    pub(super) unsafe fn cool(blocks: &mut [NonNull<Self>]) {
        blocks.sort_unstable();
        let neighbours =
            |a: &NonNull<Self>, b: &NonNull<Self>| a.as_ptr().wrapping_add(1) == b.as_ptr();
        for run in blocks.chunk_by(neighbours) {
            let Some(first) = run.first() else { continue };
            // A failure leaves the pages where they are, and does no harm.
            let len = run.len() * size_of::<Self>();
            // SAFETY: the pages hold blocks of ours that are not in use.
            unsafe { libc::madvise(first.as_ptr().cast(), len, libc::MADV_DONTNEED) };
        }
    }

    /// The model checker starts afresh each time, and wants nothing left allocated.
    ///
    /// # Safety
    ///
    /// The blocks may not be used any more.
    #[cfg(all(test, loom))]
    pub(super) unsafe fn cool(blocks: &mut [NonNull<Self>]) {
        for block in blocks {
            // SAFETY: by the caller's promise the block is unused, and dropped once.
            unsafe { block.drop_in_place() };
            // SAFETY: it was allocated with this layout.
            unsafe { std::alloc::dealloc(block.as_ptr().cast(), Layout::new::<Self>()) };
        }
    }

    /// The bytes of a block.
    ///
    /// # Safety
    ///
    /// The block must be live for as long as the reference is used.
    pub(super) unsafe fn bytes<'a>(block: NonNull<Self>) -> &'a Bytes {
        // SAFETY: the block is live, by the caller's promise, and `Bytes` is a shared cell.
        unsafe { &(*block.as_ptr()).bytes }
    }

    /// The link to the next block.
    ///
    /// # Safety
    ///
    /// The block must be live for as long as the reference is used.
    pub(super) unsafe fn link<'a>(block: NonNull<Self>) -> &'a Link {
        // SAFETY: the block is live, by the caller's promise, and `Link` is a shared cell.
        unsafe { &(*block.as_ptr()).next }
    }
}
