// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which blocks a direction owns.
//!
//! The writer goes round: when it needs a block, it takes the oldest one again if the round is long
//! enough and the reader is through with it, and a further one from the [pool](super::pool) if not.
//! The positions tell, so nothing passes between the two for it. The reader, when it has drained
//! the queue, gives back what a drained direction may not keep.
//!
//! The writer takes the lock once a block, or once for a write that needs several; the reader only
//! tries it: if the writer has it, the queue is about to be no longer drained.

use std::collections::VecDeque;
use std::ptr::NonNull;
use std::sync::PoisonError;

use super::block::Block;
use super::pool::{Lease, Pool};
use crate::sync::{AtomicUsize, Mutex, MutexGuard, Ordering};
use crate::word::Position;

/// See the documentation of the module.
#[derive(Debug)]
pub(crate) struct Chain {
    blocks: Mutex<VecDeque<Owned>>,
    /// How many they are, for a glance without the lock.
    count: AtomicUsize,
    pool: &'static Pool,
}

/// A block of the chain, and the position after its last byte.
#[derive(Clone, Copy, Debug)]
struct Owned {
    block: NonNull<Block>,
    end: Position,
}

// SAFETY: a block may be used and freed by any thread; whose turn it is, the positions say.
unsafe impl Send for Owned {}

impl Owned {
    /// Whether a reader at `head` is through with the block. At its very end it is not: there it
    /// has still to look up the next one.
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

    /// Lets a writer add blocks, which knows that the reader has come to `head`, or further, as
    /// `look` tells.
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

    /// How many blocks there are.
    #[inline]
    pub(super) fn len(&self) -> usize {
        // ORDER: Relaxed; partner: `extend`. A count that is out of date is put right by the next
        // call, and at rest none is.
        self.count.load(Ordering::Relaxed)
    }

    /// The right to keep a round of blocks when the queue is drained.
    pub(super) fn lease(&self) -> Option<Lease> {
        self.pool.lease()
    }

    /// Gives blocks back, down to `keep`, which is not zero; for a reader that has come to `head`.
    #[inline]
    pub(super) fn release(&self, keep: usize, head: Position) {
        if self.len() > keep {
            self.shrink(keep, head);
        }
    }

    #[cold]
    fn shrink(&self, keep: usize, head: Position) {
        let Ok(mut blocks) = self.blocks.try_lock() else {
            return;
        };
        let passed = blocks
            .iter()
            .take_while(|owned| owned.is_past(head))
            .count();
        let spare = blocks.len().saturating_sub(keep).min(passed);
        // SAFETY: the reader is through with these blocks, and as they leave the chain here the
        // writer will not come to them again.
        unsafe {
            self.pool
                .give(blocks.drain(..spare).map(|owned| owned.block));
        }
        // A long queue has made the list long.
        blocks.shrink_to(Pool::WARM);
        // ORDER: Relaxed; partner: `release`, on this side.
        self.count.store(blocks.len(), Ordering::Relaxed);
    }

    /// Makes sure that `bytes` can be queued without a call of the allocator, as far as the bound
    /// of the pool allows.
    pub(super) fn stock_up(&self, bytes: u64) {
        let blocks = usize::try_from(bytes / Block::BYTES as u64).unwrap_or(usize::MAX);
        // One for what is left, and one because the first may be part read, the last part written.
        let most = blocks.saturating_add(2);
        self.pool.stock_up(most);
        let mut blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        let bound = Pool::WARM.max(Pool::ROUND + 1);
        let more = most
            .clamp(Pool::ROUND + 1, bound)
            .saturating_sub(blocks.len());
        blocks.reserve(more);
    }
}

/// The chain while its writer, under the lock, adds blocks to it.
pub(super) struct Extension<'a, L> {
    chain: &'a Chain,
    blocks: MutexGuard<'a, VecDeque<Owned>>,
    head: &'a mut Position,
    look: L,
}

impl<L: Fn() -> Position> Extension<'_, L> {
    /// Adds a block to a chain that reaches to `end`, and moves that on.
    ///
    /// The block is the writer's alone until it publishes what it has put there.
    pub(super) fn add(&mut self, end: &mut Position) -> NonNull<Block> {
        *end = end.advanced_by(Block::BYTES as u64);
        let block = self.oldest().unwrap_or_else(|| {
            let others = self.blocks.len();
            // ORDER: Relaxed; partner: `release`, which sees the count by the position that is
            // published after it.
            self.chain.count.store(others + 1, Ordering::Relaxed);
            self.chain.pool.take(others)
        });
        self.blocks.push_back(Owned { block, end: *end });
        block
    }

    /// Takes the oldest block out, if the round is long enough and the reader is through with it.
    fn oldest(&mut self) -> Option<NonNull<Block>> {
        let oldest = *self.blocks.front()?;
        if self.blocks.len() <= Pool::ROUND {
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
        // SAFETY: reader and writer are gone.
        unsafe { self.pool.give(blocks.drain(..).map(|owned| owned.block)) };
    }
}
