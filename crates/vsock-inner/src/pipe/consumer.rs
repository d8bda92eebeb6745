// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The reading side of a pipe.
//!
//! It keeps its own position, and remembers the writer's position as last seen, so that it reads
//! the shared word only when that is not enough. Taking bytes is always followed by
//! [`release`](Consumer::release), which publishes the new position and, if the queue is drained,
//! decides what memory to keep and what the descriptor shows.

use std::mem;
use std::ptr::NonNull;
use std::time::Duration;

use super::block::Block;
use super::pool::{Lease, Pool};
use super::{Pipe, Progress};
use crate::spin::{Pace, Spinner};
use crate::sync::Arc;
use crate::word::{ENDED, Position, READ_SHUT, READER_RESET};

/// Blocks that a direction keeps beyond what is queued while data flows: 512 KiB, so that bursts
/// reuse the same blocks.
const SPARE_IN_FLOW: usize = 32;
/// Blocks that a drained direction keeps: the one in which the writer continues.
const KEPT_WHEN_DRAINED: usize = 1;

/// How long a reader that has drained the queue looks for more before its descriptor is cleared,
/// and how long it looks for the next request after an answer.
const LOOK: Duration = Duration::from_micros(2);

/// The reading side: its position, and what it knows of the writer.
#[derive(Debug)]
pub(crate) struct Consumer {
    pipe: Arc<Pipe>,
    head: Position,
    /// The writer's position when last seen. It can only have advanced since.
    tail: Position,
    /// Where this side has shut down reading. Later bytes are not for it.
    limit: Option<Position>,
    /// The first block of the chain, once there was something to read.
    block: Option<NonNull<Block>>,
    /// The offset of the next byte in the block.
    at: usize,
    /// Polls for more before the descriptor is cleared.
    look: Spinner,
    /// Polls for more before the descriptor's owner goes back to its poll.
    ahead: Spinner,
    /// While this side is busy, the writer's cycle of blocks may be kept even when the queue is
    /// drained.
    lease: Option<Lease>,
}

// SAFETY: this side accesses the block under the rules of the pipe, on whichever thread it is.
unsafe impl Send for Consumer {}
// SAFETY: a shared reference neither writes to a block nor changes the pointer.
unsafe impl Sync for Consumer {}

impl Consumer {
    pub(crate) fn new(pipe: Arc<Pipe>, spin_budget: Duration) -> Self {
        Self {
            pipe,
            head: Position::START,
            tail: Position::START,
            limit: None,
            block: None,
            at: Block::BYTES,
            look: Spinner::among_many(spin_budget.min(LOOK)),
            ahead: Spinner::among_many(spin_budget.min(LOOK)),
            lease: None,
        }
    }

    pub(crate) fn pipe(&self) -> &Pipe {
        &self.pipe
    }

    /// Moves available bytes into `parts`, whose total length is `len` and not zero.
    #[inline]
    pub(crate) fn read<'a>(
        &mut self,
        parts: impl Iterator<Item = &'a mut [u8]>,
        len: usize,
    ) -> Progress {
        self.transfer(len, |this, mut left| {
            for part in parts {
                let fits = part.len().min(left);
                left -= fits;
                this.take(fits, fill(&mut part[..fits]));
            }
        })
    }

    /// Consumes available bytes, at least one and at most `max`, and passes them to `show` piece by
    /// piece. If `show` panics, nothing has been consumed.
    #[inline]
    pub(crate) fn read_with(&mut self, max: usize, show: impl FnMut(&[u8])) -> Progress {
        self.transfer(max, |this, there| {
            // `show` is a caller's code. Run it on a view first: if it panics, no byte is lost.
            this.view(there, show);
            this.take(there, |_| {});
        })
    }

    /// Copies available bytes to `part`, which is not empty, without consuming them.
    pub(crate) fn peek(&mut self, part: &mut [u8]) -> Progress {
        let there = self.available(part.len());
        if let Progress::Done(len) = there {
            self.view(len, fill(&mut part[..len]));
        }
        there
    }

    /// Passes the next `len` bytes, which must be available, to `show` piece by piece, without
    /// consuming them.
    pub(super) fn view(&self, mut len: usize, mut show: impl FnMut(&[u8])) {
        let (mut block, mut at) = (self.block, self.at);
        while len > 0 {
            if at == Block::BYTES {
                block = self.after(block);
                at = 0;
            }
            let piece = len.min(Block::BYTES - at);
            self.show(block, at, piece, &mut show);
            at += piece;
            len -= piece;
        }
    }

    /// Ends the direction because this side is being dropped. `resets` decides, from whether bytes
    /// are left unread, if the end is a reset for the writer.
    pub(crate) fn close(&mut self, resets: impl Fn(bool) -> bool) {
        let (head, limit) = (self.head, self.limit);
        self.pipe.end_by(|word| {
            // Within one atomic change, so a byte published before the end counts as unread, and
            // any other comes after it.
            let tail = limit.unwrap_or_else(|| word.position());
            if resets(tail != head) {
                READER_RESET
            } else {
                READ_SHUT
            }
        });
        self.discard();
    }

    /// Discards the available bytes, so that their memory is free before the writer ends.
    fn discard(&mut self) {
        let take = |this: &mut Self, there| this.take(there, |_| {});
        while let Progress::Done(_) = self.transfer(usize::MAX, take) {}
        self.rest();
    }

    /// Takes up to `len` of the available bytes. `take` must not run a caller's code after it has
    /// taken bytes: if that code panicked, their space would never be returned.
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

    /// Shuts the direction down. Bytes that are queued now can still be taken; those of a write in
    /// progress cannot. Returns whether the direction had not ended before.
    pub(crate) fn shut_down(&mut self) -> bool {
        let before = self.pipe.end(READ_SHUT);
        if !before.has(READ_SHUT) {
            self.limit = Some(before.position());
            self.tail = before.position();
        }
        !before.has(ENDED)
    }

    /// Whether any bytes have been taken. Correct for the first 2^56 bytes.
    pub(crate) fn has_begun(&self) -> bool {
        self.head != Position::START
    }

    /// The number of bytes available.
    pub(crate) fn queued(&self) -> u64 {
        let tail = self
            .limit
            .unwrap_or_else(|| self.pipe.data.load().position());
        tail.since(self.head)
    }

    /// How many of `len` bytes are available.
    #[inline]
    pub(super) fn available(&mut self, len: usize) -> Progress {
        let mut there = self.tail.since(self.head);
        // Look at the other side's cache line only if the last known position is not enough.
        if there < len as u64 {
            let word = self.pipe.data.load();
            self.tail = self.limit.unwrap_or_else(|| word.position());
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

    /// Consumes the next `len` bytes, which must be available, and passes them to `show` piece by
    /// piece.
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
        // SAFETY: a block stays in the chain until this side's position is past it.
        let bytes = unsafe { Block::bytes(block) };
        // SAFETY: the range is within the block. It was filled before the position that `available`
        // has seen was published, and it belongs to this side until it is released.
        unsafe { bytes.view(at, len, show) };
    }

    /// Moves on to the next block, and returns blocks that a shorter queue no longer needs.
    #[cold]
    fn advance(&mut self) {
        self.block = self.after(self.block);
        self.at = 0;
        let ahead = self.tail.since(self.head) / Block::BYTES as u64;
        let ahead = usize::try_from(ahead).unwrap_or(usize::MAX);
        self.pipe
            .chain
            .release(ahead.saturating_add(SPARE_IN_FLOW), self.head);
    }

    /// The block after `block`, which must contain published bytes.
    fn after(&self, block: Option<NonNull<Block>>) -> Option<NonNull<Block>> {
        let link = match block {
            // SAFETY: a block stays in the chain until this side's position is past it.
            Some(block) => unsafe { Block::link(block) },
            None => &self.pipe.first,
        };
        // SAFETY: the writer set the link before it published bytes beyond it, and such bytes are
        // available.
        unsafe { link.get() }
    }

    /// Returns the space of `bytes` consumed bytes to the writer.
    #[inline]
    fn release(&mut self, bytes: u64) {
        self.pipe.space.publish(bytes);
        if self.head == self.tail {
            if self.pipe.chain.len() > KEPT_WHEN_DRAINED {
                self.keep_a_cycle();
            }
            self.settle();
        }
    }

    #[cold]
    fn keep_a_cycle(&mut self) {
        if self.lease.is_none() {
            self.lease = self.pipe.chain.lease();
        }
        let keep = match self.lease {
            Some(_) => Pool::CYCLE + 1,
            None => KEPT_WHEN_DRAINED,
        };
        self.pipe.chain.release(keep, self.head);
    }

    /// Returns the blocks that only a busy reader may keep: nothing more is available for now.
    pub(crate) fn rest(&mut self) {
        self.lease = None;
        self.pipe.chain.release(KEPT_WHEN_DRAINED, self.head);
    }

    /// The writer's position that makes a read succeed.
    pub(crate) fn want(&self) -> Position {
        self.head.advanced_by(1)
    }

    /// Polls for a moment for the next request after an answer was written. A peer that was polling
    /// for the answer sends it immediately; the owner's poll of the descriptor then need not sleep.
    pub(crate) fn look_ahead(&mut self) {
        let (doorbell, want) = (&self.pipe.data, self.want());
        let more = || doorbell.load().is_ready(want);
        if doorbell.is_taken() && self.head == self.tail && self.ahead.spin(None, Pace::Hurry, more)
        {
            self.pipe.data.wake(); // the peer's own wake-up may come after the owner has slept
        }
    }

    /// Updates the descriptor to show whether a read would make progress. A busy writer is about to
    /// publish more, so looking again is worth the two system calls for clearing and waking.
    pub(crate) fn settle(&mut self) {
        let (doorbell, want) = (&self.pipe.data, self.want());
        let more = || doorbell.load().is_ready(want);
        if doorbell.is_taken() && !self.look.spin(None, Pace::Calm, more) {
            // Return memory first: after `settle` the owner may sleep for a long time.
            self.rest();
            self.pipe.data.settle(want);
        }
    }
}

/// Copies the pieces it receives to `part`, one after another.
fn fill(mut part: &mut [u8]) -> impl FnMut(&[u8]) {
    move |bytes| {
        let (now, later) = mem::take(&mut part).split_at_mut(bytes.len());
        now.copy_from_slice(bytes);
        part = later;
    }
}
