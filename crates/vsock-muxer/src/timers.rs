// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use vsock_proto::Tick;

use crate::slot::Slot;

/// When which connection wants to be woken.
///
/// Each has one deadline or none. They stand in a binary heap that knows where each of them is: to
/// set, move or cancel one costs the logarithm of their number and leaves no trace, and
/// nothing is allocated once as many have been set as ever will be at a time.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    heap: Vec<Entry>,
    /// Where in the heap each slot stands, plus one; zero if nowhere.
    positions: Vec<usize>,
}

/// Ordered by time; at the same time the smaller slot first, so that a run can be repeated.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Entry {
    at: Tick,
    slot: Slot,
}

impl Timers {
    /// No deadline.
    pub(crate) const fn new() -> Self {
        Self {
            heap: Vec::new(),
            positions: Vec::new(),
        }
    }

    /// Sets the deadline of a connection, or moves it.
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
        // The last one moves to the free position, unless it was the last itself.
        if let Some(last) = self.heap.pop().filter(|last| last.slot != slot) {
            self.put(position, last);
            self.restore(position);
        }
    }

    /// The earliest deadline.
    pub(crate) fn next_deadline(&self) -> Option<Tick> {
        self.heap.first().map(|entry| entry.at)
    }

    /// Takes out a connection whose deadline has come; the earliest first.
    pub(crate) fn pop_due(&mut self, now: Tick) -> Option<Slot> {
        let first = *self.heap.first()?;
        if now < first.at {
            return None;
        }
        self.cancel(first.slot);
        Some(first.slot)
    }

    /// How many deadlines are set.
    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }

    fn position(&self, slot: Slot) -> Option<usize> {
        self.positions.get(slot.index())?.checked_sub(1)
    }

    fn put(&mut self, position: usize, entry: Entry) {
        if let Some(stored) = self.heap.get_mut(position) {
            *stored = entry;
        }
        if let Some(known) = self.positions.get_mut(entry.slot.index()) {
            *known = position.saturating_add(1);
        }
    }

    /// Moves an entry that has changed to where it belongs.
    fn restore(&mut self, position: usize) {
        let position = self.rise(position);
        self.sink(position);
    }

    fn rise(&mut self, mut position: usize) -> usize {
        while let Some(child) = position.checked_sub(1) {
            if !self.swap_if_later(child / 2, position) {
                break;
            }
            position = child / 2;
        }
        position
    }

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

    /// Swaps two entries if the one nearer to the top is the later.
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
