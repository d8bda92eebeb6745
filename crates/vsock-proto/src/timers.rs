// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use alloc::vec::Vec;

use crate::{Slot, Tick};

/// When which connection wants to be woken.
///
/// Each has one deadline or none. They stand in a binary heap that knows where each of them is: to
/// set, move or cancel one costs the logarithm of their number and leaves nothing behind, and
/// nothing is allocated once as many have been set as ever will be at a time.
///
/// ```
/// use vsock_proto::{Slot, Tick, Timers};
///
/// let mut timers = Timers::new();
/// timers.set(Slot::new(4), Tick::from_nanos(200));
/// timers.set(Slot::new(9), Tick::from_nanos(100));
/// timers.set(Slot::new(9), Tick::from_nanos(300));
/// assert_eq!(timers.next_deadline(), Some(Tick::from_nanos(200)));
/// assert_eq!(timers.pop_due(Tick::from_nanos(250)), Some(Slot::new(4)));
/// assert_eq!(timers.pop_due(Tick::from_nanos(250)), None);
/// timers.cancel(Slot::new(9));
/// assert!(timers.is_empty());
/// ```
#[derive(Debug, Default)]
pub struct Timers {
    heap: Vec<Entry>,
    /// Where in the heap each slot stands, plus one; zero if nowhere.
    places: Vec<usize>,
}

/// Ordered by time; at the same time the smaller slot first, so that a run can be repeated.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Entry {
    at: Tick,
    slot: Slot,
}

impl Timers {
    /// No deadline.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            heap: Vec::new(),
            places: Vec::new(),
        }
    }

    /// Sets the deadline of a connection, or moves it.
    pub fn set(&mut self, slot: Slot, at: Tick) {
        let entry = Entry { at, slot };
        if let Some(place) = self.place(slot) {
            self.put(place, entry);
            self.restore(place);
            return;
        }
        if slot.index() >= self.places.len() {
            self.places.resize(slot.index().saturating_add(1), 0);
        }
        let place = self.heap.len();
        self.heap.push(entry);
        self.put(place, entry);
        self.rise(place);
    }

    /// Cancels the deadline of a connection, if it has one.
    pub fn cancel(&mut self, slot: Slot) {
        let Some(place) = self.place(slot) else {
            return;
        };
        if let Some(known) = self.places.get_mut(slot.index()) {
            *known = 0;
        }
        // The last one takes the free place, unless it was the last itself.
        if let Some(last) = self.heap.pop()
            && last.slot != slot
        {
            self.put(place, last);
            self.restore(place);
        }
    }

    /// The deadline of a connection.
    #[must_use]
    pub fn get(&self, slot: Slot) -> Option<Tick> {
        self.heap.get(self.place(slot)?).map(|entry| entry.at)
    }

    /// The earliest deadline.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Tick> {
        self.heap.first().map(|entry| entry.at)
    }

    /// Takes out a connection whose deadline has come; the earliest first.
    pub fn pop_due(&mut self, now: Tick) -> Option<Slot> {
        let first = *self.heap.first()?;
        if now < first.at {
            return None;
        }
        self.cancel(first.slot);
        Some(first.slot)
    }

    /// How many deadlines are set.
    #[must_use]
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether no deadline is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    fn place(&self, slot: Slot) -> Option<usize> {
        self.places.get(slot.index())?.checked_sub(1)
    }

    fn put(&mut self, place: usize, entry: Entry) {
        if let Some(stored) = self.heap.get_mut(place) {
            *stored = entry;
        }
        if let Some(known) = self.places.get_mut(entry.slot.index()) {
            *known = place.saturating_add(1);
        }
    }

    /// Moves an entry that has changed to where it belongs.
    fn restore(&mut self, place: usize) {
        let place = self.rise(place);
        self.sink(place);
    }

    fn rise(&mut self, mut place: usize) -> usize {
        while let Some(child) = place.checked_sub(1) {
            if !self.swap_if_later(child / 2, place) {
                break;
            }
            place = child / 2;
        }
        place
    }

    fn sink(&mut self, mut place: usize) {
        loop {
            let left = place.saturating_mul(2).saturating_add(1);
            let right = left.saturating_add(1);
            let smaller = match (self.heap.get(left), self.heap.get(right)) {
                (Some(l), Some(r)) if r < l => right,
                (Some(_), _) => left,
                (None, _) => return,
            };
            if !self.swap_if_later(place, smaller) {
                return;
            }
            place = smaller;
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
