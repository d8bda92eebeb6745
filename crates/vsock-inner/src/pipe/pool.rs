// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Blocks that no direction needs now.
//!
//! A drained direction gives its blocks back, and a busy one needs blocks all the time; between the
//! two stands a stock, shared by the whole process, so that neither the first keeps memory nor the
//! second calls the allocator. Its warm part is bounded: [`SHARDS`] times [`Pool::WARM`] blocks,
//! 8 MiB in all. What is beyond is cold: the kernel has its pages back, and only the addresses are
//! kept.
//!
//! A direction whose reader is at work may keep a [round](Pool::ROUND) of blocks by a [`Lease`],
//! which counts as a part of the stock.

use std::collections::VecDeque;
use std::ptr::NonNull;
// Not the switch's: statics outlive an execution of the model checker, and keep nothing there.
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::block::Block;

/// The number of stocks over which directions are spread, each with a lock of its own.
const SHARDS: usize = 8;

/// One stock.
#[derive(Debug)]
pub(crate) struct Pool(Mutex<Stock>);

#[derive(Debug)]
struct Stock {
    /// Blocks with their pages, the one that has been unused for longest first.
    warm: VecDeque<NonNull<Block>>,
    /// Blocks without.
    cold: Vec<NonNull<Block>>,
    /// How many rounds are out on lease.
    leased: usize,
}

/// The right of a drained direction to keep a round of blocks.
#[derive(Debug)]
pub(super) struct Lease(&'static Pool);

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.lock().leased -= 1;
    }
}

// SAFETY: a block in a stock belongs to it alone: the side that gave it keeps no pointer to it.
unsafe impl Send for Stock {}

static POOLS: [Pool; SHARDS] = [const { Pool(Mutex::new(Stock::EMPTY)) }; SHARDS];

/// Counts the directions.
static NEXT: AtomicUsize = AtomicUsize::new(0);

impl Pool {
    /// Blocks that a stock keeps warm: 1 MiB.
    pub(super) const WARM: usize = if cfg!(all(test, loom)) { 0 } else { 64 };

    /// Blocks that go round: 256 KiB. To write where another processor has read a moment ago can
    /// take twice as long as where it has read a while ago.
    pub(super) const ROUND: usize = if cfg!(all(test, loom)) { 1 } else { 16 };

    /// The stock for a new direction.
    pub(super) fn next() -> &'static Self {
        // ORDER: Relaxed; partner: none, the number only spreads the load.
        &POOLS[NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS]
    }

    /// A block for the caller alone, which has `others` in use.
    pub(super) fn take(&self, others: usize) -> NonNull<Block> {
        let block = self.lock().take(others);
        // SAFETY: the block has left the stock, so only the caller knows it.
        unsafe { Block::initialise(block) };
        block
    }

    /// Takes blocks back.
    ///
    /// # Safety
    ///
    /// The blocks must come from a pool, and may not be used any more.
    pub(super) unsafe fn give(&self, mut blocks: impl Iterator<Item = NonNull<Block>>) {
        let mut stock = self.lock();
        let room = stock.room();
        stock.reserve();
        stock.warm.extend(blocks.by_ref().take(room));
        drop(stock);
        let mut cold: Vec<_> = blocks.collect();
        if !cold.is_empty() {
            // SAFETY: by the caller's promise these are not in use, and the stock has not got them
            // yet.
            unsafe { Block::cool(&mut cold) };
            if !cfg!(all(test, loom)) {
                self.lock().cold.append(&mut cold);
            }
        }
    }

    /// Makes sure that there are `blocks` blocks, or as many as the stock keeps warm.
    pub(super) fn stock_up(&self, blocks: usize) {
        let mut stock = self.lock();
        stock.reserve();
        while stock.warm.len() + stock.cold.len() < blocks.min(Self::WARM) {
            stock.cold.extend(Block::allocate());
        }
    }

    /// Lets a direction keep a round of blocks, if the stock has room for it.
    pub(super) fn lease(&'static self) -> Option<Lease> {
        let mut stock = self.lock();
        let granted = cfg!(all(test, loom)) || stock.room() >= Self::ROUND;
        granted.then(|| {
            stock.leased += 1;
            Lease(self)
        })
    }

    fn lock(&self) -> MutexGuard<'_, Stock> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stock {
    const EMPTY: Self = Self {
        warm: VecDeque::new(),
        cold: Vec::new(),
        leased: 0,
    };

    /// The block that has been unused for longest, if it comes after a round of others.
    fn take(&mut self, others: usize) -> NonNull<Block> {
        loop {
            let block = if self.warm.len() + others < Pool::ROUND {
                self.cold.pop().or_else(|| self.warm.pop_front())
            } else {
                self.warm.pop_front().or_else(|| self.cold.pop())
            };
            if let Some(block) = block {
                return block;
            }
            self.cold.extend(Block::allocate());
        }
    }

    /// How many more blocks may be warm.
    fn room(&self) -> usize {
        Pool::WARM.saturating_sub(self.warm.len() + self.leased * Pool::ROUND)
    }

    /// Grows to the full size in one step, and so once only.
    fn reserve(&mut self) {
        self.warm
            .reserve_exact(Pool::WARM.saturating_sub(self.warm.len()));
    }
}
