// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One direction of a connection: a bounded queue of bytes with one writer and one reader.
//!
//! The bytes lie in a chain of [blocks](block). The writer appends to the last block and publishes
//! its position; the reader takes from the first one, and hands it back when the writer has gone on
//! to the next. So an untouched direction owns no memory, a full one owns its capacity, and a
//! drained one keeps the block that the writer would go on in.

#![expect(
    unsafe_code,
    reason = "two threads share the blocks; the positions say who owns which byte"
)]

mod block;
mod chain;
mod consumer;
mod copying;
mod pool;
mod producer;
#[cfg(all(feature = "vm-memory", not(all(test, loom))))]
mod volatile;

pub(crate) use consumer::Consumer;
pub(crate) use producer::Producer;

use block::Link;
use chain::Chain;

use crate::config::Capacity;
use crate::doorbell::Doorbell;
use crate::word::Word;

/// A refused write asks for this share of the capacity before it counts as refused no more.
const RESUME_SHARE: u64 = 4;
/// And for no more than this many bytes.
const RESUME_MAX: u64 = 64 * 1024;

/// What came of an attempt to transfer bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Progress {
    /// This number of bytes, at least one.
    Done(usize),
    /// There is nothing to read, or no space.
    Blocked,
    /// There will be nothing to read any more, or no reader.
    Ended,
}

/// What writer and reader share.
#[derive(Debug)]
pub(crate) struct Pipe {
    /// The writer's position; here the reader waits.
    pub(crate) data: Doorbell,
    /// The reader's position; here the writer waits.
    pub(crate) space: Doorbell,
    /// The first block, for a reader that has not begun.
    first: Link,
    chain: Chain,
    /// `None`: unbounded.
    capacity: Option<u64>,
}

impl Pipe {
    pub(crate) fn new(capacity: Capacity) -> Self {
        Self {
            data: Doorbell::new(),
            space: Doorbell::new(),
            first: Link::empty(),
            chain: Chain::new(),
            capacity: match capacity {
                Capacity::Bytes(bytes) => Some(bytes as u64),
                Capacity::Unbounded => None,
            },
        }
    }

    /// Ends the direction for both sides, for the reason that `flags` gives. Returns the writer's
    /// position and the flags from before.
    pub(crate) fn end(&self, flags: u64) -> Word {
        self.end_by(|_| flags)
    }

    /// As [`end`](Self::end), for a reason that depends on the writer's position: what is published
    /// before the end is seen, and what is not comes after it.
    pub(crate) fn end_by(&self, reason: impl Fn(Word) -> u64) -> Word {
        let (before, flags) = self.data.end(reason);
        self.space.end(|_| flags);
        before
    }

    /// Whether this many bytes can ever be queued together.
    pub(crate) fn may_hold(&self, len: usize) -> bool {
        self.capacity.is_none_or(|capacity| len as u64 <= capacity)
    }

    /// How many bytes are queued. A moment later it may be wrong.
    pub(crate) fn queued(&self) -> u64 {
        let (space, data) = (self.space.load(), self.data.load());
        data.position().since(space.position())
    }

    /// How much must be free before a refused write counts on space again.
    fn resume(&self) -> u64 {
        self.capacity
            .map_or(1, |capacity| (capacity / RESUME_SHARE).clamp(1, RESUME_MAX))
    }
}
