// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The blocks that a direction owns.
//!
//! The writer uses its blocks in a cycle. When it needs a block, it reuses the oldest one if the
//! cycle is long enough and the reader has finished with that block. Otherwise it takes one from
//! the [pool](super::pool). The positions show whether the reader has, so it need not notify the
//! writer. After the reader has drained the queue, it returns the blocks that a drained direction
//! may not keep.
//!
//! The writer takes the lock once for each block, or once for a write that needs several. The
//! reader only tries to lock: if the writer holds the lock, the queue is about to be filled again.

use std::collections::VecDeque;
use std::ptr::NonNull;
use std::sync::PoisonError;

use super::block::Block;
use super::pool::{Lease, Pool};
use crate::sync::{AtomicUsize, Mutex, MutexGuard, Ordering};
use crate::word::Position;

/// The blocks that a direction owns, oldest first.
#[derive(Debug)]
pub(crate) struct Chain {
    blocks: Mutex<VecDeque<Owned>>,
    /// The number of blocks, to check without the lock.
    count: AtomicUsize,
    pool: &'static Pool,
}

/// A block of the chain, and the position after its last byte.
#[derive(Clone, Copy, Debug)]
struct Owned {
    block: NonNull<Block>,
    end: Position,
}

// SAFETY: any thread may use and free a block; the positions say whose turn it is.
unsafe impl Send for Owned {}

impl Owned {
    /// Whether a reader at `head` has finished with the block. Exactly at its end it has not,
    /// because it still has to follow the link to the next one.
    fn is_past(&self, head: Position) -> bool {
        head != self.end && head.reached(self.end)
    }
}

impl Chain {
    pub(super) fn new() -> Self {
        Self {
            blocks: Mutex::default(),
            count: AtomicUsize::new(0),
            pool: Pool::next(),
        }
    }

    /// Lets a writer add blocks. The reader is known to have reached `head`; `look` returns its
    /// current position.
    pub(super) fn extend<'a, L>(&'a self, head: &'a mut Position, look: L) -> Extension<'a, L>
    where
        L: Fn() -> Position,
    {
        Extension {
            chain: self,
            blocks: self.blocks.lock().unwrap_or_else(PoisonError::into_inner),
            head,
            look,
        }
    }

    /// The number of blocks.
    #[inline]
    pub(super) fn len(&self) -> usize {
        // ORDER: Relaxed; partner: `extend`. The next call corrects a count that is out of date,
        // and at rest none is.
        self.count.load(Ordering::Relaxed)
    }

    /// The right to keep a cycle of blocks while the queue is drained.
    pub(super) fn lease(&self) -> Option<Lease> {
        self.pool.lease()
    }

    /// Returns blocks to the pool until only `keep` are left, which must not be zero, for a reader
    /// that has reached `head`.
    #[inline]
    pub(super) fn release(&self, keep: usize, head: Position) {
        if self.len() > keep {
            self.shrink(keep, head);
        }
    }

    #[cold]
    fn shrink(&self, keep: usize, head: Position) {
        // Only a try: the lock is taken by a writer that is about to publish more.
        let Ok(mut blocks) = self.blocks.try_lock() else {
            return;
        };
        let passed = blocks
            .iter()
            .take_while(|owned| owned.is_past(head))
            .count();
        let spare = blocks.len().saturating_sub(keep).min(passed);
        // SAFETY: the reader has finished with these blocks, and because they leave the chain here
        // the writer will not return to them.
        unsafe {
            self.pool
                .give(blocks.drain(..spare).map(|owned| owned.block));
        }
        // A long queue may have made the list long.
        blocks.shrink_to(Pool::WARM);
        // ORDER: Relaxed; partner: `release`, on this side.
        self.count.store(blocks.len(), Ordering::Relaxed);
    }

    /// Makes sure that `bytes` can be queued without calling the allocator, as far as the limit of
    /// the pool allows.
    pub(super) fn fill_pool(&self, bytes: u64) {
        let blocks = usize::try_from(bytes / Block::BYTES as u64).unwrap_or(usize::MAX);
        // One more for the remainder, and one because the first block may be partly read and the
        // last partly written.
        let most = blocks.saturating_add(2);
        self.pool.fill(most);
        let mut blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        let bound = Pool::WARM.max(Pool::CYCLE + 1);
        let more = most
            .clamp(Pool::CYCLE + 1, bound)
            .saturating_sub(blocks.len());
        blocks.reserve(more);
    }
}

/// A chain to which its writer adds blocks, under the lock.
pub(super) struct Extension<'a, L> {
    chain: &'a Chain,
    blocks: MutexGuard<'a, VecDeque<Owned>>,
    head: &'a mut Position,
    look: L,
}

impl<L: Fn() -> Position> Extension<'_, L> {
    /// Adds a block to a chain that reaches to `end`, and advances `end`.
    ///
    /// Only the writer may use the block until it publishes what it has put there.
    pub(super) fn add(&mut self, end: &mut Position) -> NonNull<Block> {
        *end = end.advanced_by(Block::BYTES as u64);
        let block = self.oldest().unwrap_or_else(|| {
            let others = self.blocks.len();
            // ORDER: Relaxed; partner: `release`, which sees the count because a position is
            // published after it.
            self.chain.count.store(others + 1, Ordering::Relaxed);
            self.chain.pool.take(others)
        });
        self.blocks.push_back(Owned { block, end: *end });
        block
    }

    /// Takes the oldest block out, if the cycle is long enough and the reader has finished with it.
    fn oldest(&mut self) -> Option<NonNull<Block>> {
        let oldest = *self.blocks.front()?;
        if self.blocks.len() <= Pool::CYCLE {
            return None;
        }
        if !oldest.is_past(*self.head) {
            *self.head = (self.look)();
        }
        if !oldest.is_past(*self.head) {
            return None;
        }
        self.blocks.pop_front();
        Some(oldest.block)
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        let mut blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: reader and writer no longer exist.
        unsafe { self.pool.give(blocks.drain(..).map(|owned| owned.block)) };
    }
}
