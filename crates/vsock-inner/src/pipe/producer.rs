// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The writing side of a pipe.
//!
//! A write first decides how much there is room for, links the blocks that it will need, copies,
//! and then publishes everything at once. The last known position of the reader is refreshed only
//! when it is not enough, or after a refusal.

use std::ptr::NonNull;

use super::block::Block;
use super::copying::Copying;
use super::{Pipe, Progress};
use crate::sync::{Arc, Stores};
use crate::word::{CONNECTING, Position, WRITE_ENDED};

/// The writing side: its position, and what it knows of the reader.
#[derive(Debug)]
pub(crate) struct Producer {
    pipe: Arc<Pipe>,
    /// The position after the last byte that was put into a block.
    tail: Position,
    /// The reader's position when last seen. It can only have advanced since.
    head: Position,
    /// The block in which this side continues. Its unpublished part belongs to this side.
    block: Option<NonNull<Block>>,
    /// The offset of the next byte in the block.
    at: usize,
    /// The block after that, if it is already linked.
    next: Option<NonNull<Block>>,
    /// The last linked block.
    last: Option<NonNull<Block>>,
    /// The position after the last byte of the last block.
    end: Position,
    /// A write was refused: space counts only once there is enough to be worth waking for.
    refused: bool,
    /// The length of the message that was refused, which must be free before it is accepted.
    /// Otherwise 1.
    least: u64,
    /// Bytes left until the stream counts as busy.
    until_busy: u64,
    copying: Copying,
}

/// A range of a block that the writer fills before it publishes it.
pub(super) struct Reserved {
    block: NonNull<Block>,
    at: usize,
    len: usize,
}

impl Reserved {
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// # Safety
    ///
    /// The block must be live, and the range not published. `from` must be readable for its length.
    #[inline]
    unsafe fn fill(self, from: *const u8, stores: Stores) {
        // SAFETY: by the caller's promise.
        let bytes = unsafe { Block::bytes(self.block) };
        // SAFETY: the range is within the block, and belongs to this side until it is published.
        unsafe { bytes.fill(self.at, from, self.len, stores) };
    }
}

// SAFETY: this side accesses the block under the rules of the pipe, on whichever thread it is.
unsafe impl Send for Producer {}
// SAFETY: a shared reference accesses no block and does not change the pointers.
unsafe impl Sync for Producer {}

impl Producer {
    pub(crate) fn new(pipe: Arc<Pipe>) -> Self {
        Self {
            tail: Position::START,
            head: Position::START,
            block: None,
            at: Block::BYTES,
            next: None,
            last: None,
            end: Position::START,
            refused: false,
            least: 1,
            until_busy: pipe.capacity.unwrap_or(u64::MAX),
            copying: Copying::new(),
            pipe,
        }
    }

    pub(crate) fn pipe(&self) -> &Pipe {
        &self.pipe
    }

    /// Queues as much of `parts` as there is space for. Their total length is `len` and not zero.
    #[inline]
    pub(crate) fn write<'a>(
        &mut self,
        parts: impl Iterator<Item = &'a [u8]>,
        len: usize,
    ) -> Progress {
        self.transfer(len, |this, mut left| {
            for part in parts {
                let part = &part[..part.len().min(left)];
                left -= part.len();
                this.append(part);
            }
        })
    }

    /// Queues all of `parts`, or nothing while there is not enough space. Their total length is
    /// `len`, which is not zero and at most the capacity. All bytes become visible to the reader
    /// together.
    pub(crate) fn write_whole<'a>(
        &mut self,
        parts: impl Iterator<Item = &'a [u8]>,
        len: usize,
    ) -> Progress {
        if self.pipe.data.peek().has(WRITE_ENDED) {
            return Progress::Ended;
        }
        self.least = self.least.max(len as u64);
        if self.room(len) < len {
            self.refused = true;
            self.settle();
            // The descriptor may have been ready, for less space than this message needs. If the
            // reader has made enough since, that was no edge, so look again.
            if self.room(len) < len {
                return Progress::Blocked;
            }
        }
        self.least = 1;
        self.write(parts, len)
    }

    /// Queues a complete request, regardless of the capacity. Afterwards nothing can be queued
    /// until this side is [connected](crate::doorbell::Doorbell::set_connected). Called before the
    /// other side has the pipe.
    pub(crate) fn request(&mut self, request: &[u8]) {
        self.extend(request.len() as u64);
        self.append(request);
        self.publish(request.len() as u64);
        self.pipe.space.set_connecting();
        self.refused = true;
    }

    /// Queues as much of `len` bytes as there is space for. `put` must not run a caller's code: if
    /// it panicked, the next call would publish what `put` has reserved but not filled.
    #[inline]
    pub(super) fn transfer(&mut self, len: usize, put: impl FnOnce(&mut Self, usize)) -> Progress {
        if self.pipe.data.peek().has(WRITE_ENDED) {
            return Progress::Ended;
        }
        let room = self.room(len);
        if room == 0 {
            self.refused = true;
            self.settle();
            return Progress::Blocked;
        }
        // Link now rather than between two copies: taking a lock waits until the copied bytes are
        // visible.
        let linked = self.end.since(self.tail);
        if room as u64 > linked {
            self.extend(room as u64 - linked);
        }
        let before = self.tail;
        put(self, room);
        let bytes = self.tail.since(before);
        self.publish(bytes);
        Progress::Done(usize::try_from(bytes).unwrap_or(room))
    }

    /// How many of `len` bytes can be queued now.
    #[inline]
    fn room(&mut self, len: usize) -> usize {
        let Some(capacity) = self.pipe.capacity else {
            // Without a limit, only a connection that is not confirmed yet can refuse.
            self.refused = self.refused && self.pipe.space.load().has(CONNECTING);
            return if self.refused { 0 } else { len };
        };
        // Saturating, because a request may exceed the capacity.
        let mut free = capacity.saturating_sub(self.tail.since(self.head));
        // Look at the other side's cache line only if the last known position is not enough.
        if self.refused || free < len as u64 {
            let word = self.pipe.space.load();
            self.head = word.position();
            free = capacity.saturating_sub(self.tail.since(self.head));
            if self.refused {
                if word.has(CONNECTING) || free < self.resume() {
                    return 0;
                }
                self.refused = false;
            }
        }
        usize::try_from(free).map_or(len, |free| free.min(len))
    }

    #[inline]
    fn append(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let range = self.reserve(bytes.len());
            let (now, later) = bytes.split_at(range.len());
            // SAFETY: the range was reserved just now, and is as long as `now`.
            unsafe { self.fill(range, now.as_ptr()) };
            bytes = later;
        }
    }

    /// Reserves up to `len` bytes in one block, for the caller to fill before they are published.
    #[inline]
    pub(super) fn reserve(&mut self, len: usize) -> Reserved {
        let block = match self.block {
            Some(block) if self.at < Block::BYTES => block,
            _ => self.advance(),
        };
        let at = self.at;
        let len = len.min(Block::BYTES - at);
        self.at += len;
        self.tail = self.tail.advanced_by(len as u64);
        Reserved { block, at, len }
    }

    /// Fills a range.
    ///
    /// # Safety
    ///
    /// The range must be the last one reserved, and not published. `from` must be readable for its
    /// length.
    #[inline]
    pub(super) unsafe fn fill(&mut self, range: Reserved, from: *const u8) {
        if Copying::compares(range.len) {
            // SAFETY: by the caller's promise.
            unsafe { self.fill_long(range, from) };
        } else {
            // SAFETY: by the caller's promise. The reader's position cannot be past the block, so
            // it is live.
            unsafe { range.fill(from, Stores::Cached) };
        }
    }

    /// # Safety
    ///
    /// As for [`fill`](Self::fill).
    #[inline(never)]
    unsafe fn fill_long(&mut self, range: Reserved, from: *const u8) {
        let (copy, len) = (self.copying.begin(), range.len);
        // SAFETY: as in `fill`.
        unsafe { range.fill(from, copy.stores) };
        self.copying.end(copy, len);
    }

    /// Moves on to the next block.
    fn advance(&mut self) -> NonNull<Block> {
        let block = match self.next.take() {
            Some(next) => next,
            None => self.extend(1),
        };
        self.block = Some(block);
        self.at = 0;
        self.next = if self.last == self.block {
            None
        } else {
            // SAFETY: a block ahead of this side stays in the chain.
            let link = unsafe { Block::link(block) };
            // SAFETY: it is not the last block, so this side has already set the link.
            unsafe { link.get() }
        };
        block
    }

    /// Appends blocks for `bytes` bytes to the chain, under one lock. Returns the first of them.
    #[cold]
    fn extend(&mut self, bytes: u64) -> NonNull<Block> {
        let pipe = &self.pipe;
        let mut more = pipe
            .chain
            .extend(&mut self.head, || pipe.space.load().position());
        let first = more.add(&mut self.end);
        Self::link(pipe, self.last, first);
        let mut last = first;
        for _ in 1..bytes.div_ceil(Block::BYTES as u64) {
            let block = more.add(&mut self.end);
            Self::link(pipe, Some(last), block);
            last = block;
        }
        self.last = Some(last);
        self.next.get_or_insert(first);
        first
    }

    /// Links `block` after `last`.
    fn link(pipe: &Pipe, last: Option<NonNull<Block>>, block: NonNull<Block>) {
        let link = match last {
            // SAFETY: the last block stays in the chain, because the reader's position cannot be
            // past it.
            Some(last) => unsafe { Block::link(last) },
            None => &pipe.first,
        };
        // SAFETY: the reader looks at the link only after bytes beyond it have been published.
        unsafe { link.set(Some(block)) };
    }

    /// Hands the `bytes` appended bytes over to the reader.
    #[inline]
    fn publish(&mut self, bytes: u64) {
        if self.until_busy > bytes {
            self.until_busy -= bytes;
        } else {
            // Before publishing: a reader that finds the lock taken relies on more to come.
            self.became_busy();
        }
        self.pipe.data.publish(bytes);
        // Full, so the next write would wait: the descriptor must say so.
        if Some(self.tail.since(self.head)) == self.pipe.capacity {
            self.settle();
        }
    }

    /// Once a stream has transferred its capacity, it should not need the allocator any more.
    #[cold]
    fn became_busy(&mut self) {
        self.until_busy = u64::MAX;
        if let Some(capacity) = self.pipe.capacity {
            self.pipe.chain.fill_pool(capacity);
        }
    }

    /// The reader's position that makes a write succeed.
    pub(crate) fn want(&self) -> Position {
        let Some(capacity) = self.pipe.capacity else {
            // Unlimited: a position far in the past, so that it always counts as reached.
            return self.tail.back_by(1 << 54);
        };
        let need = if self.refused { self.resume() } else { 1 };
        self.tail.advanced_by(need).back_by(capacity)
    }

    /// How much space must be free before the refused write is accepted.
    fn resume(&self) -> u64 {
        self.pipe.resume().max(self.least)
    }

    /// Updates the descriptor for writing to show whether a write would make progress.
    fn settle(&self) {
        self.pipe.space.settle(self.want());
    }
}
