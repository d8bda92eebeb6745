// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use alloc::boxed::Box;
use alloc::vec;

use thiserror::Error;

/// A bounded queue of bytes that the guest has sent and the host's stream has not yet accepted.
///
/// Memory grows with the bytes that wait, up to the limit, and is freed when the queue becomes
/// empty, except for at most [`Backlog::KEPT`] bytes.
///
/// [`consume`](Self::consume) removes bytes only after they were written, so a partial or failed
/// write neither loses nor repeats any.
#[derive(Debug)]
pub(crate) struct Backlog {
    /// A ring buffer: the waiting bytes start at `head`.
    bytes: Box<[u8]>,
    head: usize,
    len: usize,
    limit: usize,
}

impl Backlog {
    /// How many bytes of memory an empty backlog may keep, so that a stream that occasionally
    /// refuses a few bytes does not cause an allocation each time.
    pub(crate) const KEPT: usize = 4096;

    /// The smallest allocation.
    const LEAST: usize = 512;

    /// Creates an empty backlog for at most `limit` bytes. Allocates nothing.
    #[must_use]
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            bytes: Box::default(),
            head: 0,
            len: 0,
            limit,
        }
    }

    /// Returns the number of waiting bytes.
    #[must_use]
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Returns whether no bytes wait.
    #[must_use]
    pub(crate) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the size of the allocated memory, in bytes.
    #[must_use]
    pub(crate) const fn memory(&self) -> usize {
        self.bytes.len()
    }

    /// Appends `bytes`.
    ///
    /// # Errors
    ///
    /// [`BacklogFull`] if they exceed the limit; none was added.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<(), BacklogFull> {
        let mut rest = bytes;
        self.append(bytes.len(), |dst| {
            let (next, after) = rest.split_at(dst.len());
            dst.copy_from_slice(next);
            rest = after;
        })
    }

    /// Appends `more` bytes, which `fill` writes: it is called for one slice of the backlog's
    /// memory, or for two if the free space wraps around.
    ///
    /// # Errors
    ///
    /// [`BacklogFull`] if they exceed the limit; `fill` was not called.
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
        // The free space follows the used part: the end of `back`, then the start of `front`. If
        // the used part itself wraps around, only the middle of `front` is free.
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

    /// Returns at most `max` of the first waiting bytes, in order, as two slices.
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

    /// Removes the first `count` bytes after they were written, or all bytes if there are fewer.
    pub(crate) fn consume(&mut self, count: usize) {
        let count = count.min(self.len);
        self.len = self.len.saturating_sub(count);
        self.head = self.head.saturating_add(count);
        if self.head >= self.bytes.len() {
            self.head = self.head.saturating_sub(self.bytes.len());
        }
        self.release_if_empty();
    }

    /// Removes the last `count` bytes, or all bytes if there are fewer.
    pub(crate) fn drop_last(&mut self, count: usize) {
        self.len = self.len.saturating_sub(count);
        self.release_if_empty();
    }

    /// Removes all bytes and frees the memory.
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

    /// Grows the memory until `more` bytes fit. The caller has checked the limit.
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

/// An error returned when bytes would exceed the limit of a [`Backlog`].
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("{more} more bytes after {len} exceed the backlog's limit of {limit}")]
pub(crate) struct BacklogFull {
    /// The number of waiting bytes.
    pub(crate) len: usize,
    /// The number of bytes to be added.
    pub(crate) more: usize,
    /// The maximum number of waiting bytes.
    pub(crate) limit: usize,
}

#[cfg(test)]
mod tests;
