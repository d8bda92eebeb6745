// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The reading side of a ring.

use std::mem;
use std::ptr::NonNull;

use super::block::Block;
use super::{Progress, Ring};
use crate::sync::Arc;
use crate::word::{ENDED, Position};

/// So many blocks a direction keeps that has just been drained: 64 KiB, with which a reader that keeps
/// up goes round and round.
const KEPT_AT_WORK: usize = 4;
/// So many it keeps when its reader has found nothing more: 16 KiB.
const KEPT_AT_REST: usize = 1;

/// The reading side: where it is, and what it knows of the writer.
#[derive(Debug)]
pub(crate) struct Consumer {
    ring: Arc<Ring>,
    head: Position,
    /// The writer's position when it was last looked at; it can only have gone on since.
    tail: Position,
    /// The first block of the chain, once there was something to read.
    block: Option<NonNull<Block>>,
    /// Where in the block the next byte is.
    at: usize,
}

// SAFETY: what the pointer leads to is reached by this side under the rules of the ring, whatever
// thread it is on.
unsafe impl Send for Consumer {}

impl Consumer {
    pub(crate) fn new(ring: Arc<Ring>) -> Self {
        Self {
            ring,
            head: Position::START,
            tail: Position::START,
            block: None,
            at: Block::BYTES,
        }
    }

    pub(crate) fn ring(&self) -> &Ring {
        &self.ring
    }

    /// Takes what is there into `parts`, which are `len` bytes in all, and not none.
    #[inline]
    pub(crate) fn read<'a>(
        &mut self,
        parts: impl Iterator<Item = &'a mut [u8]>,
        len: usize,
    ) -> Progress {
        self.transfer(len, |this, mut left| {
            for part in parts {
                let fits = part.len().min(left);
                let mut part = &mut part[..fits];
                left -= fits;
                this.take(fits, |bytes| {
                    let (now, later) = mem::take(&mut part).split_at_mut(bytes.len());
                    now.copy_from_slice(bytes);
                    part = later;
                });
            }
        })
    }

    /// Shows what is there in `part`, which is not empty, and takes nothing.
    pub(crate) fn peek(&mut self, part: &mut [u8]) -> Progress {
        let there = match self.available(part.len()) {
            Progress::Done(there) => there,
            nothing => return nothing,
        };
        let (mut block, mut at, mut part) = (self.block, self.at, &mut part[..there]);
        while !part.is_empty() {
            if at == Block::BYTES {
                block = self.after(block);
                at = 0;
            }
            let (now, later) = part.split_at_mut(part.len().min(Block::BYTES - at));
            self.show(block, at, now.len(), |bytes| now.copy_from_slice(bytes));
            at += now.len();
            part = later;
        }
        Progress::Done(there)
    }

    /// Throws away what is there, so that its memory is free before the writer ends.
    pub(crate) fn discard(&mut self) {
        let take = |this: &mut Self, there| this.take(there, |_| {});
        while let Progress::Done(_) = self.transfer(usize::MAX, take) {}
        self.rest();
    }

    /// Takes of `len` bytes what is there.
    #[inline]
    pub(super) fn transfer(&mut self, len: usize, take: impl FnOnce(&mut Self, usize)) -> Progress {
        let there = match self.available(len) {
            Progress::Done(there) => there,
            nothing => return nothing,
        };
        let before = self.head;
        take(self, there);
        let taken = self.head.since(before);
        self.release(taken);
        Progress::Done(usize::try_from(taken).unwrap_or(there))
    }

    /// How much of `len` bytes is there.
    #[inline]
    fn available(&mut self, len: usize) -> Progress {
        let mut there = self.tail.since(self.head);
        if there < len as u64 {
            let word = self.ring.data.load();
            self.tail = word.position();
            there = self.tail.since(self.head);
            if there == 0 {
                return if word.has(ENDED) {
                    Progress::Ended
                } else {
                    Progress::Blocked
                };
            }
        }
        Progress::Done(usize::try_from(there).map_or(len, |there| there.min(len)))
    }

    /// Takes the next `len` bytes, which are there, and shows them piece by piece.
    #[inline]
    pub(super) fn take(&mut self, mut len: usize, mut show: impl FnMut(&[u8])) {
        while len > 0 {
            if self.at == Block::BYTES {
                self.advance();
            }
            let piece = len.min(Block::BYTES - self.at);
            self.show(self.block, self.at, piece, &mut show);
            self.at += piece;
            self.head = self.head.advanced_by(piece as u64);
            len -= piece;
        }
    }

    #[inline]
    fn show(&self, block: Option<NonNull<Block>>, at: usize, len: usize, show: impl FnOnce(&[u8])) {
        debug_assert!(block.is_some());
        let Some(block) = block else { return };
        // SAFETY: a block stays in the chain until this side's position is behind it.
        let bytes = unsafe { Block::bytes(block) };
        // SAFETY: the range lies in the block; it was filled before the position that `available`
        // has seen was published, and is this side's until it is released.
        unsafe { bytes.view(at, len, show) };
    }

    /// Goes on to the next block.
    #[cold]
    fn advance(&mut self) {
        self.block = self.after(self.block);
        self.at = 0;
    }

    /// The block behind `block`, in which there are published bytes.
    fn after(&self, block: Option<NonNull<Block>>) -> Option<NonNull<Block>> {
        let link = match block {
            // SAFETY: a block stays in the chain until this side's position is behind it.
            Some(block) => unsafe { Block::link(block) },
            None => &self.ring.first,
        };
        // SAFETY: the writer set the link before it published bytes behind it, and bytes behind it
        // are there.
        unsafe { link.get() }
    }

    /// Gives the space of `bytes` that were taken back to the writer.
    #[inline]
    fn release(&mut self, bytes: u64) {
        self.ring.space.publish(bytes);
        if self.head == self.tail {
            self.ring.chain.release(KEPT_AT_WORK, self.head);
            self.settle();
        }
    }

    /// Gives back what a reader at work keeps, because there is nothing more to read for now.
    pub(crate) fn rest(&self) {
        self.ring.chain.release(KEPT_AT_REST, self.head);
    }

    /// The writer's position from which on a read gets somewhere.
    pub(crate) fn want(&self) -> Position {
        self.head.advanced_by(1)
    }

    /// Brings the descriptor in line with what a read would do.
    fn settle(&self) {
        self.ring.data.settle(self.want());
    }
}
