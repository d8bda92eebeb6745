// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The writing side of a pipe.

use std::ptr::NonNull;

use super::block::Block;
use super::{Pipe, Progress};
use crate::sync::{Arc, Bytes};
use crate::word::{CONNECTING, Position, WRITE_ENDED};

/// The writing side: where it is, and what it knows of the reader.
#[derive(Debug)]
pub(crate) struct Producer {
    pipe: Arc<Pipe>,
    /// The position after the last byte that was put into a block.
    tail: Position,
    /// The reader's position when it was last looked at; it can only have gone on since.
    head: Position,
    /// The block in which this side goes on; it belongs to it, up to the bytes that are published.
    block: Option<NonNull<Block>>,
    /// Where in the block the next byte goes.
    at: usize,
    /// The block after it, if it is linked already.
    next: Option<NonNull<Block>>,
    /// The last block that is linked.
    last: Option<NonNull<Block>>,
    /// The position after the last byte of that one.
    end: Position,
    /// A write was refused: space counts only once there is enough of it to be worth waking for.
    refused: bool,
    /// The bytes of the message that was refused, which must be free before it is taken; else 1.
    least: u64,
    /// Bytes that are left until the stream counts as busy.
    until_busy: u64,
}

/// A range of a block that the writer fills before it publishes it.
pub(super) struct Reserved<'p> {
    pub(super) bytes: &'p Bytes,
    pub(super) at: usize,
    pub(super) len: usize,
}

// SAFETY: what the pointer leads to is reached by this side under the rules of the pipe, whatever
// thread it is on.
unsafe impl Send for Producer {}
// SAFETY: through a shared reference no block is reached, and the pointers stay as they are.
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
            pipe,
        }
    }

    pub(crate) fn pipe(&self) -> &Pipe {
        &self.pipe
    }

    /// Queues as much of `parts` as there is space for; they are `len` bytes in all, and not none.
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

    /// Queues all of `parts`, or nothing while there is no space for all. They are `len` bytes, not
    /// none, and not more than the capacity; to the reader all become visible together.
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
            return Progress::Blocked;
        }
        self.least = 1;
        self.write(parts, len)
    }

    /// Queues a request whole, whatever the capacity, and nothing more until this side is
    /// [connected](crate::doorbell::Doorbell::set_connected); before the other side has the pipe.
    pub(crate) fn request(&mut self, request: &[u8]) {
        self.extend(request.len() as u64);
        self.append(request);
        self.publish(request.len() as u64);
        self.pipe.space.set_connecting();
        self.refused = true;
    }

    /// Queues of `len` bytes what there is space for. `put` runs no code of a caller's: what it has
    /// reserved and not filled when it panics, the next call would publish.
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
        // Now, and not between two copies: taking a lock waits until the copied bytes are visible.
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

    /// How much of `len` bytes can be queued now.
    #[inline]
    fn room(&mut self, len: usize) -> usize {
        let Some(capacity) = self.pipe.capacity else {
            // Without a bound only a connection that is not confirmed yet can refuse.
            self.refused = self.refused && self.pipe.space.load().has(CONNECTING);
            return if self.refused { 0 } else { len };
        };
        // A request may be more than the capacity.
        let mut free = capacity.saturating_sub(self.tail.since(self.head));
        // The other side's cache line is looked at only where what is known of it does not do.
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
            let (now, later) = bytes.split_at(range.len);
            // SAFETY: the range was reserved just now.
            unsafe { range.bytes.fill(range.at, now) };
            bytes = later;
        }
    }

    /// Goes on by up to `len` bytes in one block. Until they are published, the range is the caller's, to
    /// fill it.
    #[inline]
    pub(super) fn reserve(&mut self, len: usize) -> Reserved<'_> {
        let block = match self.block {
            Some(block) if self.at < Block::BYTES => block,
            _ => self.advance(),
        };
        let at = self.at;
        let len = len.min(Block::BYTES - at);
        self.at += len;
        self.tail = self.tail.advanced_by(len as u64);
        // SAFETY: the last block stays in the chain: the reader's position cannot be past it.
        let bytes = unsafe { Block::bytes(block) };
        Reserved { bytes, at, len }
    }

    /// Goes on to the next block.
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
            // SAFETY: it is not the last one, so this side has set the link, and does not now.
            unsafe { link.get() }
        };
        block
    }

    /// Appends blocks for `len` bytes to the chain, under one lock. Returns the
    /// first of them.
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
            // SAFETY: the last block stays in the chain: the reader's position cannot be past it.
            Some(last) => unsafe { Block::link(last) },
            None => &pipe.first,
        };
        // SAFETY: the reader looks at the link only once bytes after it are published.
        unsafe { link.set(Some(block)) };
    }

    /// Makes the `bytes` that were appended the reader's.
    #[inline]
    fn publish(&mut self, bytes: u64) {
        if self.until_busy > bytes {
            self.until_busy -= bytes;
        } else {
            self.became_busy(); // before: a reader that finds the lock taken relies on more to come
        }
        self.pipe.data.publish(bytes);
        if Some(self.tail.since(self.head)) == self.pipe.capacity {
            self.settle();
        }
    }

    /// A stream that has moved its capacity once goes on without the allocator from here.
    #[cold]
    fn became_busy(&mut self) {
        self.until_busy = u64::MAX;
        if let Some(capacity) = self.pipe.capacity {
            self.pipe.chain.stock_up(capacity);
        }
    }

    /// The reader's position from which on a write gets somewhere.
    pub(crate) fn want(&self) -> Position {
        let Some(capacity) = self.pipe.capacity else {
            return self.tail.back_by(1 << 54);
        };
        let need = if self.refused { self.resume() } else { 1 };
        self.tail.advanced_by(need).back_by(capacity)
    }

    /// How much must be free before what was refused is taken.
    fn resume(&self) -> u64 {
        self.pipe.resume().max(self.least)
    }

    /// Brings the descriptor for writing in line with what a write would do.
    fn settle(&self) {
        self.pipe.space.settle(self.want());
    }
}
