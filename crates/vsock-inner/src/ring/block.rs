// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A block of bytes, and the link to the next one.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::NonNull;

use crate::sync::{BLOCK_BYTES, Bytes, Shared};

/// Where the next block is: written once by the writer, then read by the reader.
#[derive(Debug)]
pub(crate) struct Link(Shared<Option<NonNull<Block>>>);

// SAFETY: a block may be freed by any thread, and every access to a link is argued where it is made.
unsafe impl Send for Link {}
// SAFETY: as above.
unsafe impl Sync for Link {}

impl Link {
    pub(super) fn empty() -> Self {
        Self(Shared::new(None))
    }

    /// # Safety
    ///
    /// What wrote the link last must have happened before, and nobody may write it now.
    pub(super) unsafe fn get(&self) -> Option<NonNull<Block>> {
        // SAFETY: by the caller's promise.
        unsafe { self.0.get() }
    }

    /// # Safety
    ///
    /// Nobody else may read or write the link now.
    pub(super) unsafe fn set(&self, block: Option<NonNull<Block>>) {
        // SAFETY: by the caller's promise.
        unsafe { self.0.set(block) }
    }
}

/// Header and bytes; aligned so that a message of a cache line's size fills one line.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Block {
    next: Link,
    bytes: Bytes,
}

impl Block {
    pub(super) const BYTES: usize = BLOCK_BYTES;

    /// Makes a block, whose bytes are not touched: the kernel gives pages as they are written.
    pub(super) fn allocate() -> NonNull<Self> {
        let layout = Layout::new::<Self>();
        // SAFETY: the layout has a size above zero.
        let memory = unsafe { alloc(layout) };
        let Some(memory) = NonNull::new(memory) else {
            handle_alloc_error(layout)
        };
        let block = memory.cast::<Self>();
        Self::initialise(block);
        block
    }

    #[cfg(not(loom))]
    fn initialise(block: NonNull<Self>) {
        // SAFETY: the memory is ours, and large enough.
        let link = unsafe { &raw mut (*block.as_ptr()).next };
        // SAFETY: as above. The bytes may stay as they are: they are `MaybeUninit`.
        unsafe { link.write(Link::empty()) }
    }

    #[cfg(loom)]
    fn initialise(block: NonNull<Self>) {
        // SAFETY: the memory is ours, and large enough.
        unsafe {
            block.as_ptr().write(Self {
                next: Link::empty(),
                bytes: Bytes::new(),
            })
        }
    }

    /// # Safety
    ///
    /// `block` must come from [`allocate`](Self::allocate), and nobody may use it any more.
    pub(super) unsafe fn free(block: NonNull<Self>) {
        // SAFETY: by the caller's promise it is initialised, and dropped once.
        unsafe { block.drop_in_place() };
        // SAFETY: it was allocated with this layout, and is not used again.
        unsafe { dealloc(block.as_ptr().cast(), Layout::new::<Self>()) }
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
