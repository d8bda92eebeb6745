// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use alloc::boxed::Box;
use alloc::vec;

use thiserror::Error;

/// A bounded queue of bytes: what the guest has sent and the host's stream has not yet taken.
///
/// Memory comes when bytes do, as much as they need and never more than the limit, and goes when
/// the last of them goes: an empty backlog keeps at most [`Backlog::KEPT`] bytes.
///
/// Bytes leave with [`consume`](Self::consume), after they were written: a write that takes half of
/// them, or fails, loses nothing and repeats nothing.
#[derive(Debug)]
pub(crate) struct Backlog {
    /// A circle: those that wait begin at `head`.
    bytes: Box<[u8]>,
    head: usize,
    len: usize,
    limit: usize,
}

impl Backlog {
    /// Bytes of memory that an empty backlog may keep, so that a stream which now and then refuses
    /// a little does not allocate each time.
    pub(crate) const KEPT: usize = 4096;

    /// The least that is allocated.
    const LEAST: usize = 512;

    /// An empty backlog that will hold at most `limit` bytes. Allocates nothing.
    #[must_use]
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            bytes: Box::default(),
            head: 0,
            len: 0,
            limit,
        }
    }

    /// Bytes that wait.
    #[must_use]
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Whether no byte waits.
    #[must_use]
    pub(crate) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of memory in use, for whatever waits and beyond.
    #[must_use]
    pub(crate) const fn memory(&self) -> usize {
        self.bytes.len()
    }

    /// Adds `bytes` after those that wait.
    ///
    /// # Errors
    ///
    /// [`BacklogFull`]: they exceed the limit; none was added.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<(), BacklogFull> {
        let mut rest = bytes;
        self.append(bytes.len(), |dst| {
            let (next, after) = rest.split_at(dst.len());
            dst.copy_from_slice(next);
            rest = after;
        })
    }

    /// Adds `more` bytes after those that wait, written by `fill`: it is called for one slice of
    /// the backlog's memory, or for two where the room for them is split.
    ///
    /// # Errors
    ///
    /// [`BacklogFull`]: they exceed the limit; `fill` was not called.
    pub(crate) fn append(
        &mut self,
        more: usize,
        mut fill: impl FnMut(&mut [u8]),
    ) -> Result<(), BacklogFull> {
        if more > self.limit.saturating_sub(self.len) {
            return Err(BacklogFull {
                len: self.len,
                more,
                limit: self.limit,
            });
        }
        self.make_room(more);
        let (front, back) = self.bytes.split_at_mut(self.head);
        // Free is what follows the used part: the end of `back`, then the start of `front`.
        let (tail, wrapped) = match back.get_mut(self.len..) {
            Some(tail) => (tail, front),
            None => {
                let used = self.len.saturating_sub(back.len());
                (front.get_mut(used..).unwrap_or_default(), &mut [][..])
            }
        };
        let first = more.min(tail.len());
        for (slice, len) in [(tail, first), (wrapped, more.saturating_sub(first))] {
            match slice.get_mut(..len) {
                Some(dst) if len > 0 => fill(dst),
                _ => {}
            }
        }
        self.len = self.len.saturating_add(more);
        Ok(())
    }

    /// The first bytes that wait, at most `max`, in order: those of the first slice come before
    /// those of the second.
    #[must_use]
    pub(crate) fn slices(&self, max: usize) -> (&[u8], &[u8]) {
        let (front, back) = self.bytes.split_at(self.head);
        let max = max.min(self.len);
        let first = max.min(back.len());
        (
            back.get(..first).unwrap_or_default(),
            front.get(..max.saturating_sub(first)).unwrap_or_default(),
        )
    }

    /// Drops the first `count` bytes, once they have been written; all, if there are fewer.
    pub(crate) fn consume(&mut self, count: usize) {
        let count = count.min(self.len);
        self.len = self.len.saturating_sub(count);
        self.head = self.head.saturating_add(count);
        if self.head >= self.bytes.len() {
            self.head = self.head.saturating_sub(self.bytes.len());
        }
        self.release_if_empty();
    }

    /// Drops the last `count` bytes; all, if there are fewer.
    pub(crate) fn drop_last(&mut self, count: usize) {
        self.len = self.len.saturating_sub(count);
        self.release_if_empty();
    }

    /// Drops all bytes, and the memory with them.
    pub(crate) fn clear(&mut self) {
        self.bytes = Box::default();
        self.head = 0;
        self.len = 0;
    }

    fn release_if_empty(&mut self) {
        if self.len == 0 {
            self.head = 0;
            if self.bytes.len() > Self::KEPT {
                self.bytes = Box::default();
            }
        }
    }

    /// Grows the memory until `more` bytes fit; the caller has checked the limit.
    fn make_room(&mut self, more: usize) {
        let needed = self.len.saturating_add(more);
        if needed <= self.bytes.len() {
            return;
        }
        let size = needed
            .checked_next_power_of_two()
            .unwrap_or(needed)
            .max(Self::LEAST)
            .min(self.limit);
        let mut grown = vec![0; size].into_boxed_slice();
        let (first, second) = self.slices(usize::MAX);
        let (start, rest) = grown.split_at_mut(first.len());
        start.copy_from_slice(first);
        if let Some(dst) = rest.get_mut(..second.len()) {
            dst.copy_from_slice(second);
        }
        self.bytes = grown;
        self.head = 0;
    }
}

/// Bytes that would exceed the limit of a [`Backlog`].
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("{len} bytes wait and {more} more exceed the limit of {limit}")]
pub(crate) struct BacklogFull {
    /// Bytes that wait.
    pub(crate) len: usize,
    /// Bytes that were to be added.
    pub(crate) more: usize,
    /// Bytes that may wait.
    pub(crate) limit: usize,
}

#[cfg(test)]
mod tests;
