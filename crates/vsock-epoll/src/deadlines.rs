// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The deadlines of all streams: one heap, for one timer.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

use crate::table::StreamId;

/// How many stale entries the heap may hold in addition to twice the valid ones.
pub(crate) const SLACK: usize = 64;

/// The next deadline of each stream that has one. An entry that is no longer valid stays in the
/// heap until its time comes, or until there are too many.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    heap: BinaryHeap<Reverse<(Instant, StreamId)>>,
}

impl Deadlines {
    pub(crate) fn push(&mut self, at: Instant, id: StreamId) {
        self.heap.push(Reverse((at, id)));
    }

    /// Removes the earliest entry, if it is due.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<(Instant, StreamId)> {
        let Reverse((at, _)) = self.heap.peek()?;
        if *at > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// Removes the entries that are not `wanted`, if there are too many for `live` streams.
    pub(crate) fn tidy(&mut self, live: usize, wanted: impl Fn(Instant, StreamId) -> bool) {
        if self.heap.len() > 2 * live + SLACK {
            self.heap.retain(|Reverse((at, id))| wanted(*at, *id));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Deadlines, SLACK};
    use crate::table::Table;

    impl Deadlines {
        pub(crate) fn len(&self) -> usize {
            self.heap.len()
        }
    }

    #[test]
    fn the_earliest_comes_first_and_none_before_its_time() {
        let mut table = Table::new();
        let [a, b] = [table.insert(()).unwrap(), table.insert(()).unwrap()];
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let mut deadlines = Deadlines::default();
        deadlines.push(later, a);
        deadlines.push(now, b);
        assert_eq!(deadlines.next(), Some(now));
        assert_eq!(deadlines.pop_due(now), Some((now, b)));
        assert_eq!(deadlines.pop_due(now), None);
        assert_eq!(deadlines.pop_due(later), Some((later, a)));
        assert_eq!(deadlines.next(), None);
    }

    #[test]
    fn the_number_of_stale_entries_is_limited() {
        let mut table = Table::new();
        let id = table.insert(()).unwrap();
        let now = Instant::now();
        let mut deadlines = Deadlines::default();
        for step in 0..10_000 {
            let at = now + Duration::from_millis(step);
            deadlines.push(at, id);
            deadlines.tidy(1, |wanted, _| wanted == at);
            assert!(deadlines.heap.len() <= 2 + SLACK + 1);
        }
    }
}
