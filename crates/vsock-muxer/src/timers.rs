// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use vsock_proto::Tick;

use crate::slot::Slot;

/// The deadlines of connections.
///
/// Each connection has at most one deadline. The deadlines form a binary heap with an index that
/// contains each connection's position, so setting, moving or cancelling a deadline takes
/// logarithmic time and leaves nothing behind. Memory is allocated only when there are more
/// deadlines than ever before.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    heap: Vec<Entry>,
    /// The position of each slot in the heap plus one; zero if the slot has no deadline.
    positions: Vec<usize>,
}

/// A deadline. At the same time, the smaller slot comes first, which makes runs reproducible.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Entry {
    at: Tick,
    slot: Slot,
}

impl Timers {
    /// Creates a set without deadlines.
    pub(crate) const fn new() -> Self {
        Self {
            heap: Vec::new(),
            positions: Vec::new(),
        }
    }

    /// Sets or moves the deadline of a connection.
    pub(crate) fn set(&mut self, slot: Slot, at: Tick) {
        let entry = Entry { at, slot };
        if let Some(position) = self.position(slot) {
            self.put(position, entry);
            self.restore(position);
            return;
        }
        if slot.index() >= self.positions.len() {
            self.positions.resize(slot.index().saturating_add(1), 0);
        }
        let position = self.heap.len();
        self.heap.push(entry);
        self.put(position, entry);
        self.rise(position);
    }

    /// Cancels the deadline of a connection, if it has one.
    pub(crate) fn cancel(&mut self, slot: Slot) {
        let Some(position) = self.position(slot) else {
            return;
        };
        if let Some(known) = self.positions.get_mut(slot.index()) {
            *known = 0;
        }
        // The last entry fills the gap, unless it is the one that was cancelled.
        if let Some(last) = self.heap.pop().filter(|last| last.slot != slot) {
            self.put(position, last);
            self.restore(position);
        }
    }

    /// Returns the earliest deadline.
    pub(crate) fn next_deadline(&self) -> Option<Tick> {
        self.heap.first().map(|entry| entry.at)
    }

    /// Removes and returns the connection with the earliest deadline, if that is due.
    pub(crate) fn pop_due(&mut self, now: Tick) -> Option<Slot> {
        let first = *self.heap.first()?;
        if now < first.at {
            return None;
        }
        self.cancel(first.slot);
        Some(first.slot)
    }

    /// Returns the number of deadlines.
    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }

    /// Returns the position of a slot in the heap.
    fn position(&self, slot: Slot) -> Option<usize> {
        self.positions.get(slot.index())?.checked_sub(1)
    }

    /// Stores an entry at a position, and the position in the index.
    fn put(&mut self, position: usize, entry: Entry) {
        if let Some(stored) = self.heap.get_mut(position) {
            *stored = entry;
        }
        if let Some(known) = self.positions.get_mut(entry.slot.index()) {
            *known = position.saturating_add(1);
        }
    }

    /// Moves a changed entry up or down until the heap is ordered again.
    fn restore(&mut self, position: usize) {
        let position = self.rise(position);
        self.sink(position);
    }

    /// Moves an entry towards the root while it is earlier than its parent. Returns its position.
    fn rise(&mut self, mut position: usize) -> usize {
        // `child` is the position minus one, so `child / 2` is the parent's position.
        while let Some(child) = position.checked_sub(1) {
            if !self.swap_if_later(child / 2, position) {
                break;
            }
            position = child / 2;
        }
        position
    }

    /// Moves an entry away from the root while a child is earlier.
    fn sink(&mut self, mut position: usize) {
        loop {
            let left = position.saturating_mul(2).saturating_add(1);
            let right = left.saturating_add(1);
            let smaller = match (self.heap.get(left), self.heap.get(right)) {
                (Some(l), Some(r)) if r < l => right,
                (Some(_), _) => left,
                (None, _) => return,
            };
            if !self.swap_if_later(position, smaller) {
                return;
            }
            position = smaller;
        }
    }

    /// Swaps two entries if the one nearer to the root is later. Returns whether it did.
    fn swap_if_later(&mut self, upper: usize, lower: usize) -> bool {
        match (self.heap.get(upper), self.heap.get(lower)) {
            (Some(&above), Some(&below)) if below < above => {
                self.put(upper, below);
                self.put(lower, above);
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests;
