// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A block of bytes, and the link to the next one.

use std::alloc::{Layout, alloc, handle_alloc_error};
use std::ptr::NonNull;

use crate::sync::{BLOCK_BYTES, Bytes, Shared};

/// The location of the next block. The writer sets it before it publishes bytes after the link,
/// once per use of the block; then the reader reads it.
#[derive(Debug)]
pub(crate) struct Link(Shared<Option<NonNull<Block>>>);

// SAFETY: a block may be freed by any thread. Every access to a link is justified where it is made.
unsafe impl Send for Link {}
// SAFETY: as above.
unsafe impl Sync for Link {}

impl Link {
    pub(super) fn empty() -> Self {
        Self(Shared::new(None))
    }

    /// # Safety
    ///
    /// The last write of the link must have happened before, and no other thread may be writing it.
    pub(super) unsafe fn get(&self) -> Option<NonNull<Block>> {
        // SAFETY: by the caller's promise.
        unsafe { self.0.get() }
    }

    /// # Safety
    ///
    /// No other thread may be reading or writing the link.
    pub(super) unsafe fn set(&self, block: Option<NonNull<Block>>) {
        // SAFETY: by the caller's promise.
        unsafe { self.0.set(block) }
    }
}

/// A header and bytes, together four pages, so that the kernel can take back the pages of each
/// block.
#[derive(Debug)]
#[repr(C, align(4096))]
pub(crate) struct Block {
    next: Link,
    bytes: Bytes,
}

impl Block {
    pub(super) const BYTES: usize = BLOCK_BYTES;

    /// How many blocks are allocated in one call. Pages that are not touched cost nothing.
    #[cfg(not(all(test, loom)))]
    const SLAB: usize = 64;
    #[cfg(all(test, loom))]
    const SLAB: usize = 1;

    /// Allocates several blocks without touching their bytes. They are never freed, but can be
    /// [cooled](Self::cool).
    pub(super) fn allocate() -> impl Iterator<Item = NonNull<Self>> {
        let layout = Layout::new::<[Self; Self::SLAB]>();
        // SAFETY: the layout has a size above zero.
        let memory = unsafe { alloc(layout) };
        let Some(memory) = NonNull::new(memory) else {
            handle_alloc_error(layout)
        };
        let first = memory.cast::<Self>();
        // SAFETY: that number of blocks was allocated, one after another.
        (0..Self::SLAB).map(move |at| unsafe { first.add(at) })
    }

    /// Turns memory from [`allocate`](Self::allocate), cooled or not, into a block with an empty
    /// link.
    ///
    /// # Safety
    ///
    /// No other thread may be using the block.
    #[cfg(not(all(test, loom)))]
    pub(super) unsafe fn initialise(block: NonNull<Self>) {
        // SAFETY: the memory is large enough, and the caller's alone.
        let link = unsafe { &raw mut (*block.as_ptr()).next };
        // SAFETY: as above. The bytes may stay as they are: they are `MaybeUninit`.
        unsafe { link.write(Link::empty()) }
    }

    /// # Safety
    ///
    /// No other thread may be using the block.
    #[cfg(all(test, loom))]
    pub(super) unsafe fn initialise(block: NonNull<Self>) {
        let fresh = Self {
            next: Link::empty(),
            bytes: Bytes::new(),
        };
        // SAFETY: the memory is large enough, and the caller's alone.
        unsafe { block.as_ptr().write(fresh) }
    }

    /// Returns the pages of unused blocks to the kernel. The addresses stay allocated.
    ///
    /// # Safety
    ///
    /// The blocks must not be used until they are initialised again.
    #[cfg(not(all(test, loom)))]
    pub(super) unsafe fn cool(blocks: &mut [NonNull<Self>]) {
        blocks.sort_unstable();
        let neighbours =
            |a: &NonNull<Self>, b: &NonNull<Self>| a.as_ptr().wrapping_add(1) == b.as_ptr();
        for run in blocks.chunk_by(neighbours) {
            let Some(first) = run.first() else { continue };
            // If this fails, the pages stay as they are, which is harmless.
            let len = run.len() * size_of::<Self>();
            // SAFETY: these pages contain only blocks of ours that are not in use.
            unsafe { libc::madvise(first.as_ptr().cast(), len, libc::MADV_DONTNEED) };
        }
    }

    /// Frees the blocks: the model checker starts afresh each time and reports memory left
    /// allocated.
    ///
    /// # Safety
    ///
    /// The blocks must not be used any more.
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
