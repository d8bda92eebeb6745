// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Blocks that no direction needs now.
//!
//! A drained direction gives its blocks back, and a busy one needs blocks all the time; between the
//! two stands a stock, shared by the whole process, so that neither the first keeps memory nor the
//! second calls the allocator. It is bounded: [`SHARDS`] times [`Pool::BLOCKS`] blocks, 8 MiB in all.
//! What is beyond goes back to the allocator.

use std::ptr::NonNull;
// Not the switch's: statics outlive an execution of the model checker, and keep nothing there.
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::block::Block;

/// The directions are spread over so many stocks, each with a lock of its own.
const SHARDS: usize = 8;

/// One stock.
#[derive(Debug)]
pub(crate) struct Pool(Mutex<Stock>);

/// The blocks of a stock, the warmest last.
#[derive(Debug)]
struct Stock(Vec<NonNull<Block>>);

// SAFETY: a block in a stock belongs to it alone: whoever gave it knows it no more.
unsafe impl Send for Stock {}

static POOLS: [Pool; SHARDS] = [const { Pool(Mutex::new(Stock(Vec::new()))) }; SHARDS];

/// Counts the directions.
static NEXT: AtomicUsize = AtomicUsize::new(0);

impl Pool {
    /// So many blocks a stock keeps: 1 MiB.
    pub(super) const BLOCKS: usize = if cfg!(loom) { 0 } else { 64 };

    /// The stock for a new direction.
    pub(super) fn next() -> &'static Self {
        // ORDER: Relaxed; partner: none, the number only spreads the load.
        &POOLS[NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS]
    }

    pub(super) fn take(&self) -> NonNull<Block> {
        let warm = self.lock().0.pop();
        warm.unwrap_or_else(Block::allocate)
    }

    /// Takes blocks back.
    ///
    /// # Safety
    ///
    /// The blocks must come from a pool, and nobody may use them any more.
    pub(super) unsafe fn give(&self, mut blocks: impl Iterator<Item = NonNull<Block>>) {
        let mut stock = self.lock();
        let room = Self::BLOCKS.saturating_sub(stock.0.len());
        stock.reserve();
        stock.0.extend(blocks.by_ref().take(room));
        drop(stock);
        for block in blocks {
            // SAFETY: by the caller's promise the block is unused, and the stock did not keep it.
            unsafe { Block::free(block) };
        }
    }

    /// Makes sure that there are so many blocks, or as many as the stock may keep.
    pub(super) fn stock_up(&self, blocks: usize) {
        let mut stock = self.lock();
        stock.reserve();
        while stock.0.len() < blocks.min(Self::BLOCKS) {
            stock.0.push(Block::allocate());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Stock> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stock {
    /// Grows to its full size at once, and so once only.
    fn reserve(&mut self) {
        self.0
            .reserve_exact(Pool::BLOCKS.saturating_sub(self.0.len()));
    }
}
