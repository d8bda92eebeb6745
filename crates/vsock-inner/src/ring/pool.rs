// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Blocks that no direction needs now.
//!
//! A drained direction gives its blocks back, and a busy one needs blocks all the time; between the
//! two stands a stock, shared by the whole process, so that neither the first keeps memory nor the
//! second calls the allocator. The stock is bounded: [`SHARDS`] times [`SHARD_BLOCKS`] blocks, 8 MiB.
//! What is beyond goes back to the allocator.

use std::ptr::NonNull;
// Not the switch's: statics outlive an execution of the model checker, which keeps nothing here.
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::block::Block;

/// Directions are spread over so many stocks, each with a lock of its own.
const SHARDS: usize = 8;
/// So many blocks a stock keeps: 1 MiB.
const SHARD_BLOCKS: usize = 64;

/// See the documentation of the module.
#[derive(Debug)]
pub(crate) struct Pool(Mutex<Stock>);

/// A stack of blocks, linked through themselves.
#[derive(Debug)]
struct Stock {
    top: Option<NonNull<Block>>,
    blocks: usize,
}

// SAFETY: the blocks of a stock belong to it alone: whoever gave one knows it no more.
unsafe impl Send for Stock {}

static POOLS: [Pool; SHARDS] = [const {
    Pool(Mutex::new(Stock {
        top: None,
        blocks: 0,
    }))
}; SHARDS];

/// The shard of the next direction.
static NEXT: AtomicUsize = AtomicUsize::new(0);

impl Pool {
    /// The stock for a new direction.
    pub(super) fn next() -> &'static Self {
        // ORDER: Relaxed; partner: none, the number only spreads the load.
        &POOLS[NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS]
    }

    /// A block whose link is empty.
    pub(super) fn take(&self) -> NonNull<Block> {
        let taken = self.stock().pop(); // and the lock is free again
        taken.unwrap_or_else(Block::allocate)
    }

    /// Takes a block back.
    ///
    /// # Safety
    ///
    /// The block must come from a pool, and nobody may use it any more.
    pub(super) unsafe fn give(&self, block: NonNull<Block>) {
        if self.stock().push(block) {
            return;
        }
        // SAFETY: by the caller's promise the block is unused, and the stock did not keep it.
        unsafe { Block::free(block) }
    }

    /// Makes sure that `bytes` can be queued without a call of the allocator, as far as the bound of
    /// the stock allows.
    pub(super) fn stock_up(&self, bytes: u64) {
        let blocks = usize::try_from(bytes / Block::BYTES as u64).unwrap_or(usize::MAX);
        let goal = blocks.saturating_add(2).min(SHARD_BLOCKS);
        let mut stock = self.stock();
        while stock.blocks < goal && !cfg!(loom) {
            stock.push(Block::allocate());
        }
    }

    fn stock(&self) -> MutexGuard<'_, Stock> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stock {
    fn pop(&mut self) -> Option<NonNull<Block>> {
        let block = self.top?;
        // SAFETY: the block is in the stock, so it is live and the stock's alone.
        let link = unsafe { Block::link(block) };
        // SAFETY: as above, and the lock orders all accesses.
        self.top = unsafe { link.get() };
        // SAFETY: as above.
        unsafe { link.set(None) };
        self.blocks -= 1;
        Some(block)
    }

    /// Whether there was room for the block.
    fn push(&mut self, block: NonNull<Block>) -> bool {
        // The model checker starts every execution afresh; nothing may stay behind.
        if self.blocks == SHARD_BLOCKS || cfg!(loom) {
            return false;
        }
        // SAFETY: whoever gives a block uses it no more: it is live and the stock's alone.
        let link = unsafe { Block::link(block) };
        // SAFETY: as above, and the lock orders all accesses.
        unsafe { link.set(self.top) };
        self.top = Some(block);
        self.blocks += 1;
        true
    }
}
