// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Text on its way to a reader that may never take it.

use std::mem;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Bytes that wait at most. Those that are being written are as many again.
const CAPACITY: usize = 256 * 1024;

/// Lines that wait to be written. Adding one never waits: what finds no room is counted.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    filled: Condvar,
    emptied: Condvar,
}

#[derive(Debug)]
struct State {
    text: Vec<u8>,
    /// Lines that found no room, all of them after `text`.
    lost: u64,
    /// Whether the batch that was taken is still being written.
    writing: bool,
}

impl State {
    /// Whether a line of this many bytes finds room. Once a line is lost, a shorter one must not
    /// come before the word of it.
    fn has_room(&self, len: usize) -> bool {
        self.lost == 0 && len <= CAPACITY - self.text.len()
    }

    fn is_empty(&self) -> bool {
        self.text.is_empty() && self.lost == 0
    }
}

impl Queue {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                text: Vec::with_capacity(CAPACITY),
                lost: 0,
                writing: false,
            }),
            filled: Condvar::new(),
            emptied: Condvar::new(),
        }
    }

    /// Adds a line, or counts it, if there is no room. It is the last thing that a panic can say,
    /// so it does not panic.
    pub(super) fn push(&self, line: &[u8]) {
        let mut state = self.state();
        if state.has_room(line.len()) {
            state.text.extend_from_slice(line);
        } else {
            state.lost = state.lost.saturating_add(1);
        }
        self.filled.notify_one();
    }

    /// Adds a line when there is room, and waits for that, but not longer than this; returns
    /// whether there was. A line that was not added is not counted.
    pub(super) fn push_in_time(&self, line: &[u8], timeout: Duration) -> bool {
        let full = |state: &mut State| !state.has_room(line.len());
        let waited = self.emptied.wait_timeout_while(self.state(), timeout, full);
        let (mut state, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        if !waited.timed_out() {
            state.text.extend_from_slice(line);
            self.filled.notify_one();
        }
        !waited.timed_out()
    }

    /// Waits for text, and takes all of it in exchange for `batch`, which has been written. Returns
    /// how many lines are missing after it.
    pub(super) fn exchange(&self, batch: &mut Vec<u8>) -> u64 {
        batch.clear();
        batch.reserve_exact(CAPACITY);
        let mut state = self.state();
        state.writing = false;
        self.emptied.notify_all();
        let waited = self.filled.wait_while(state, |state| state.is_empty());
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        mem::swap(&mut state.text, batch);
        state.writing = true;
        mem::take(&mut state.lost)
    }

    /// Waits until all is written, but not longer than this; returns whether it is.
    pub(super) fn wait_until_empty(&self, timeout: Duration) -> bool {
        let busy = |state: &mut State| state.writing || !state.is_empty();
        let waited = self.emptied.wait_timeout_while(self.state(), timeout, busy);
        let (_state, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        !waited.timed_out()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whole after a panic: each change is of one value, or cannot panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const GENEROUS: Duration = Duration::from_secs(20);

    /// What is taken now, and how many lines are missing after it.
    fn taken(queue: &Queue) -> (Vec<u8>, u64) {
        let mut batch = Vec::new();
        let lost = queue.exchange(&mut batch);
        (batch, lost)
    }

    #[test]
    fn lines_come_out_in_order_and_together() {
        let queue = Queue::new();
        queue.push(b"one\n");
        queue.push(b"two\n");
        assert_eq!(taken(&queue), (b"one\ntwo\n".to_vec(), 0));
    }

    #[test]
    fn t131_what_finds_no_room_is_counted_and_does_not_wait() {
        let queue = Queue::new();
        let line = [b'x'; 1000];
        let room = CAPACITY / line.len();
        for _ in 0..room + 5 {
            queue.push(&line);
        }
        // It would find room, but would hide that others did not.
        queue.push(b"short\n");
        let (text, lost) = taken(&queue);
        assert_eq!((text.len(), lost), (room * line.len(), 6));
        queue.push(b"next\n");
        assert_eq!(taken(&queue), (b"next\n".to_vec(), 0));
    }

    #[test]
    fn a_line_that_may_wait_is_added_when_there_is_room_and_never_beyond_it() {
        let queue = Queue::new();
        assert!(queue.push_in_time(&[b'x'; CAPACITY], Duration::ZERO));
        assert!(
            !queue.push_in_time(b"y", Duration::ZERO),
            "there is no room"
        );
        thread::scope(|scope| {
            let waits = scope.spawn(|| queue.push_in_time(b"next\n", GENEROUS));
            let (text, lost) = taken(&queue);
            assert_eq!((text.len(), lost), (CAPACITY, 0), "it is not counted");
            assert!(waits.join().unwrap());
        });
        assert_eq!(taken(&queue), (b"next\n".to_vec(), 0));
    }

    #[test]
    fn t131_memory_is_bounded_whatever_the_length_of_a_line() {
        let queue = Queue::new();
        queue.push(&vec![b'x'; CAPACITY + 1]);
        queue.push(b"y");
        assert_eq!(taken(&queue), (Vec::new(), 2));
    }

    #[test]
    fn t131_the_end_waits_for_what_is_written_and_not_for_ever() {
        let queue = Queue::new();
        assert!(queue.wait_until_empty(Duration::ZERO), "nothing waits");
        queue.push(b"line\n");
        assert!(!queue.wait_until_empty(Duration::ZERO), "it waits");
        let (text, _) = taken(&queue);
        assert!(
            !queue.wait_until_empty(Duration::ZERO),
            "it is being written"
        );
        thread::scope(|scope| {
            let writer = scope.spawn(|| queue.exchange(&mut text.clone()));
            assert!(queue.wait_until_empty(GENEROUS), "it is written");
            queue.push(b"end\n");
            writer.join().unwrap();
        });
    }
}
