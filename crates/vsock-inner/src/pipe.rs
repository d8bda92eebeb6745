// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One direction of a connection: a bounded queue of bytes with one writer and one reader.
//!
//! The bytes are stored in a chain of [blocks](block). The writer appends to the last block and
//! publishes its position. The reader takes from the first block, and returns it once the writer
//! has moved on to the next. So an unused direction owns no memory, a full one owns its capacity,
//! and a drained one keeps the block in which the writer will continue.

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

/// A refused write waits until this fraction of the capacity is free ...
const RESUME_SHARE: u64 = 4;
/// ... or this many bytes, if that is less.
const RESUME_MAX: u64 = 64 * 1024;

/// The result of an attempt to transfer bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Progress {
    /// This many bytes were transferred, at least one.
    Done(usize),
    /// Nothing to read, or no space.
    Blocked,
    /// Nothing will ever be readable again, or the reader has gone.
    Ended,
}

/// The state that writer and reader share.
#[derive(Debug)]
pub(crate) struct Pipe {
    /// The writer's position, for which the reader waits.
    pub(crate) data: Doorbell,
    /// The reader's position, for which the writer waits.
    pub(crate) space: Doorbell,
    /// The link to the first block, for a reader that has not begun.
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

    /// Ends the direction for both sides by setting `flags`. Returns the writer's position and the
    /// flags from before.
    pub(crate) fn end(&self, flags: u64) -> Word {
        self.end_by(|_| flags)
    }

    /// Like [`end`](Self::end), with flags that depend on the writer's position. What is published
    /// before the end is seen by `reason`; everything else comes after the end.
    pub(crate) fn end_by(&self, reason: impl Fn(Word) -> u64) -> Word {
        let (before, flags) = self.data.end(reason);
        self.space.end(|_| flags);
        before
    }

    /// Whether this many bytes could ever be queued together.
    pub(crate) fn may_hold(&self, len: usize) -> bool {
        self.capacity.is_none_or(|capacity| len as u64 <= capacity)
    }

    /// The number of queued bytes. It may be out of date immediately.
    pub(crate) fn queued(&self) -> u64 {
        let (space, data) = (self.space.load(), self.data.load());
        data.position().since(space.position())
    }

    /// How much space must be free before a refused write is worth another attempt.
    fn resume(&self) -> u64 {
        self.capacity
            .map_or(1, |capacity| (capacity / RESUME_SHARE).clamp(1, RESUME_MAX))
    }
}
