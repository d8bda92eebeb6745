// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Pools of blocks that no direction currently needs.
//!
//! A drained direction returns its blocks, and a busy one constantly needs more. Between them,
//! pools shared by the whole process make sure that neither the first holds memory nor the second
//! calls the allocator. The warm part of the pools is limited to [`COUNT`] times [`Pool::WARM`]
//! blocks, 8 MiB in total. Blocks in excess of that are cold: their pages have been returned to the
//! kernel, and only the addresses are kept.
//!
//! While its reader is busy, a direction may keep a [cycle](Pool::CYCLE) of blocks. It holds a
//! [`Lease`] for them, which counts towards the pool.

use std::collections::VecDeque;
use std::ptr::NonNull;
// Not from `sync`: statics outlive an execution of the model checker, and hold nothing there.
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::block::Block;

/// The number of pools. Directions are spread over them, and each has its own lock.
const COUNT: usize = 8;

/// A pool of blocks.
#[derive(Debug)]
pub(crate) struct Pool(Mutex<Blocks>);

#[derive(Debug)]
struct Blocks {
    /// Blocks with pages, longest unused first.
    warm: VecDeque<NonNull<Block>>,
    /// Blocks without pages.
    cold: Vec<NonNull<Block>>,
    /// The number of cycles on lease.
    leased: usize,
}

/// The right of a drained direction to keep a cycle of blocks.
#[derive(Debug)]
pub(super) struct Lease(&'static Pool);

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.lock().leased -= 1;
    }
}

// SAFETY: a block in a pool belongs only to it. The side that returned it keeps no pointer to it.
unsafe impl Send for Blocks {}

static POOLS: [Pool; COUNT] = [const { Pool(Mutex::new(Blocks::EMPTY)) }; COUNT];

/// Counts the directions.
static NEXT: AtomicUsize = AtomicUsize::new(0);

impl Pool {
    /// The number of blocks that a pool keeps warm: 1 MiB.
    pub(super) const WARM: usize = if cfg!(all(test, loom)) { 0 } else { 64 };

    /// The number of blocks in a cycle: 256 KiB. Writing to memory that another processor has just
    /// read can take twice as long as writing to memory that it read some time ago.
    pub(super) const CYCLE: usize = if cfg!(all(test, loom)) { 1 } else { 16 };

    /// Returns the pool for a new direction.
    pub(super) fn next() -> &'static Self {
        // ORDER: Relaxed; partner: none, the number only spreads the load.
        &POOLS[NEXT.fetch_add(1, Ordering::Relaxed) % COUNT]
    }

    /// Returns a block for the exclusive use of the caller, which already uses `others`.
    pub(super) fn take(&self, others: usize) -> NonNull<Block> {
        let block = self.lock().take(others);
        // SAFETY: the block has left the pool, so only the caller knows it.
        unsafe { Block::initialise(block) };
        block
    }

    /// Takes blocks back.
    ///
    /// # Safety
    ///
    /// The blocks must come from a pool, and must not be used any more.
    pub(super) unsafe fn give(&self, mut blocks: impl Iterator<Item = NonNull<Block>>) {
        let mut pool = self.lock();
        let room = pool.room();
        pool.reserve();
        pool.warm.extend(blocks.by_ref().take(room));
        drop(pool);
        // Make the system call without the lock.
        let mut cold: Vec<_> = blocks.collect();
        if !cold.is_empty() {
            // SAFETY: the caller promises that these are not in use, and the pool does not have
            // them yet.
            unsafe { Block::cool(&mut cold) };
            if !cfg!(all(test, loom)) {
                self.lock().cold.append(&mut cold);
            }
        }
    }

    /// Makes sure that the pool has `blocks` blocks, or as many as it keeps warm.
    pub(super) fn fill(&self, blocks: usize) {
        let mut pool = self.lock();
        pool.reserve();
        while pool.warm.len() + pool.cold.len() < blocks.min(Self::WARM) {
            pool.cold.extend(Block::allocate());
        }
    }

    /// Lets a direction keep a cycle of blocks, if the pool has room for it.
    pub(super) fn lease(&'static self) -> Option<Lease> {
        let mut pool = self.lock();
        let granted = cfg!(all(test, loom)) || pool.room() >= Self::CYCLE;
        granted.then(|| {
            pool.leased += 1;
            Lease(self)
        })
    }

    fn lock(&self) -> MutexGuard<'_, Blocks> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Blocks {
    const EMPTY: Self = Self {
        warm: VecDeque::new(),
        cold: Vec::new(),
        leased: 0,
    };

    /// Takes the block that has been unused longest, but a cold one while the blocks of the caller
    /// and the warm ones are fewer than a cycle.
    fn take(&mut self, others: usize) -> NonNull<Block> {
        loop {
            let block = if self.warm.len() + others < Pool::CYCLE {
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

    /// How many more blocks can be warm.
    fn room(&self) -> usize {
        Pool::WARM.saturating_sub(self.warm.len() + self.leased * Pool::CYCLE)
    }

    /// Grows to the full size in one step, so that it grows only once.
    fn reserve(&mut self) {
        self.warm
            .reserve_exact(Pool::WARM.saturating_sub(self.warm.len()));
    }
}
