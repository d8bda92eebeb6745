// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The reading side of a pipe.

use std::mem;
use std::ptr::NonNull;
use std::time::Duration;

use super::block::Block;
use super::pool::{Lease, Pool};
use super::{Pipe, Progress};
use crate::spin::{Pace, Spinner};
use crate::sync::Arc;
use crate::word::{ENDED, Position, READ_SHUT, READER_RESET};

/// Blocks that a direction keeps beyond what is queued, while bytes flow: 512 KiB, so that bursts
/// go round in the blocks that they had.
const SPARE_IN_FLOW: usize = 32;
/// Blocks that a drained direction keeps: the one in which the writer goes on.
const KEPT_WHEN_DRAINED: usize = 1;

/// How long a reader that has drained the queue looks for more before its descriptor is cleared,
/// and how long for a request after an answer.
const LOOK: Duration = Duration::from_micros(2);

/// The reading side: where it is, and what it knows of the writer.
#[derive(Debug)]
pub(crate) struct Consumer {
    pipe: Arc<Pipe>,
    head: Position,
    /// The writer's position when it was last looked at; it can only have gone on since.
    tail: Position,
    /// Where this side has ended its reading: what comes after is not for it any more.
    limit: Option<Position>,
    /// The first block of the chain, once there was something to read.
    block: Option<NonNull<Block>>,
    /// Where in the block the next byte is.
    at: usize,
    /// For another look before a descriptor is cleared.
    look: Spinner,
    /// For a look before the owner of the descriptor goes to poll it.
    ahead: Spinner,
    /// While this side is at work, what the writer goes round in may stay when the queue is
    /// drained.
    round: Option<Lease>,
}

// SAFETY: what the pointer leads to is reached by this side under the rules of the pipe, whatever
// thread it is on.
unsafe impl Send for Consumer {}
// SAFETY: through a shared reference no block is written to, and the pointer stays as it is.
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
            round: None,
        }
    }

    pub(crate) fn pipe(&self) -> &Pipe {
        &self.pipe
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
                left -= fits;
                this.take(fits, fill(&mut part[..fits]));
            }
        })
    }

    /// Passes the available bytes to `show` piece by piece, at least one and at most `max`, and
    /// takes them. If `show` panics, nothing has been taken.
    #[inline]
    pub(crate) fn read_with(&mut self, max: usize, show: impl FnMut(&[u8])) -> Progress {
        self.transfer(max, |this, there| {
            this.view(there, show);
            this.take(there, |_| {});
        })
    }

    /// Shows what is there in `part`, which is not empty, and takes nothing.
    pub(crate) fn peek(&mut self, part: &mut [u8]) -> Progress {
        let there = self.available(part.len());
        if let Progress::Done(len) = there {
            self.view(len, fill(&mut part[..len]));
        }
        there
    }

    /// Shows the next `len` bytes, which are there, piece by piece, and takes nothing.
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

    /// Ends the direction because this side is being dropped: with a reset for the writer, if
    /// `resets` says so of whether there are bytes that were not taken.
    pub(crate) fn close(&mut self, resets: impl Fn(bool) -> bool) {
        let (head, limit) = (self.head, self.limit);
        self.pipe.end_by(|word| {
            let tail = limit.unwrap_or_else(|| word.position());
            if resets(tail != head) {
                READER_RESET
            } else {
                READ_SHUT
            }
        });
        self.discard();
    }

    /// Throws away what is there, so that its memory is free before the writer ends.
    fn discard(&mut self) {
        let take = |this: &mut Self, there| this.take(there, |_| {});
        while let Progress::Done(_) = self.transfer(usize::MAX, take) {}
        self.rest();
    }

    /// Takes up to `len` of the available bytes. `take` runs no caller's code after it has taken
    /// something: if that code panicked, the space would never be returned.
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

    /// Ends the direction: what is queued now can still be taken, and nothing that a writer queues
    /// that was at it already. Returns whether a writer has not ended the direction before.
    pub(crate) fn shut_down(&mut self) -> bool {
        let before = self.pipe.end(READ_SHUT);
        if !before.has(READ_SHUT) {
            self.limit = Some(before.position());
            self.tail = before.position();
        }
        !before.has(ENDED)
    }

    /// Whether something has been taken. (After 2^56 bytes it is forgotten.)
    pub(crate) fn has_begun(&self) -> bool {
        self.head != Position::START
    }

    /// How many bytes are there to be taken.
    pub(crate) fn queued(&self) -> u64 {
        let tail = self
            .limit
            .unwrap_or_else(|| self.pipe.data.load().position());
        tail.since(self.head)
    }

    /// How much of `len` bytes is there.
    #[inline]
    pub(super) fn available(&mut self, len: usize) -> Progress {
        let mut there = self.tail.since(self.head);
        // The other side's cache line is looked at only where what is known of it does not do.
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
        // SAFETY: a block stays in the chain until this side's position is past it.
        let bytes = unsafe { Block::bytes(block) };
        // SAFETY: the range lies in the block; it was filled before the position that `available`
        // has seen was published, and is this side's until it is released.
        unsafe { bytes.view(at, len, show) };
    }

    /// Goes on to the next block, and gives back what a shorter queue needs no more.
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

    /// The block after `block`, in which there are published bytes.
    fn after(&self, block: Option<NonNull<Block>>) -> Option<NonNull<Block>> {
        let link = match block {
            // SAFETY: a block stays in the chain until this side's position is past it.
            Some(block) => unsafe { Block::link(block) },
            None => &self.pipe.first,
        };
        // SAFETY: the writer set the link before it published bytes after it, and bytes after it
        // are there.
        unsafe { link.get() }
    }

    /// Gives the space of `bytes` that were taken back to the writer.
    #[inline]
    fn release(&mut self, bytes: u64) {
        self.pipe.space.publish(bytes);
        if self.head == self.tail {
            if self.pipe.chain.len() > KEPT_WHEN_DRAINED {
                self.keep_a_round();
            }
            self.settle();
        }
    }

    #[cold]
    fn keep_a_round(&mut self) {
        if self.round.is_none() {
            self.round = self.pipe.chain.lease();
        }
        let keep = match self.round {
            Some(_) => Pool::ROUND + 1,
            None => KEPT_WHEN_DRAINED,
        };
        self.pipe.chain.release(keep, self.head);
    }

    /// Gives back what only a reader at work may keep: there is nothing more to read for now.
    pub(crate) fn rest(&mut self) {
        self.round = None;
        self.pipe.chain.release(KEPT_WHEN_DRAINED, self.head);
    }

    /// The writer's position from which on a read gets somewhere.
    pub(crate) fn want(&self) -> Position {
        self.head.advanced_by(1)
    }

    /// Waits a moment for the next request, after an answer was written: a peer that waited for the
    /// answer at work sends it immediately, and then polling the descriptor takes no sleep.
    pub(crate) fn look_ahead(&mut self) {
        let (doorbell, want) = (&self.pipe.data, self.want());
        let more = || doorbell.load().is_ready(want);
        if doorbell.is_taken() && self.head == self.tail && self.ahead.spin(None, Pace::Hurry, more)
        {
            self.pipe.data.wake(); // or the peer's may come after the owner has gone to sleep
        }
    }

    /// Brings the descriptor in line with what a read would do. A writer at work is about to
    /// publish more, so another look is worth the two system calls that clearing and waking cost.
    pub(crate) fn settle(&mut self) {
        let (doorbell, want) = (&self.pipe.data, self.want());
        let more = || doorbell.load().is_ready(want);
        if doorbell.is_taken() && !self.look.spin(None, Pace::Calm, more) {
            // Memory first: after `settle` the owner may sleep for long.
            self.rest();
            self.pipe.data.settle(want);
        }
    }
}

/// Copies what it is shown to `part`, piece by piece.
fn fill(mut part: &mut [u8]) -> impl FnMut(&[u8]) {
    move |bytes| {
        let (now, later) = mem::take(&mut part).split_at_mut(bytes.len());
        now.copy_from_slice(bytes);
        part = later;
    }
}
