// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The queue of lines between the threads that log and the thread that writes.

use std::mem;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The maximum number of waiting bytes. The batch that is being written can be as long again.
const CAPACITY: usize = 256 * 1024;

/// Lines that wait to be written. Adding a line never blocks: one that does not fit is counted.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    filled: Condvar,
    emptied: Condvar,
}

#[derive(Debug)]
struct State {
    text: Vec<u8>,
    /// The number of lines that did not fit. All of them came after `text`.
    lost: u64,
    /// Whether the batch that was taken last is still being written.
    writing: bool,
}

impl State {
    /// Returns whether a line of this length fits. Once a line is lost, no line fits until the
    /// writer knows of the loss: a shorter line must not appear before the note that reports it.
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

    /// Adds a line, or counts it if it does not fit. The panic hook uses this, so it cannot panic.
    pub(super) fn push(&self, line: &[u8]) {
        let mut state = self.state();
        if state.has_room(line.len()) {
            state.text.extend_from_slice(line);
        } else {
            state.lost = state.lost.saturating_add(1);
        }
        self.filled.notify_one();
    }

    /// Adds a line as soon as there is room. Returns `false` if there is none within `timeout`; the
    /// line is not counted as lost then, because the caller knows.
    pub(super) fn push_within(&self, line: &[u8], timeout: Duration) -> bool {
        let full = |state: &mut State| !state.has_room(line.len());
        let waited = self.emptied.wait_timeout_while(self.state(), timeout, full);
        let (mut state, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        if !waited.timed_out() {
            state.text.extend_from_slice(line);
            self.filled.notify_one();
        }
        !waited.timed_out()
    }

    /// Waits for text and takes all of it, in exchange for `batch`, which the caller has written.
    /// Returns how many lines are missing after the text.
    ///
    /// The two buffers are reused, so logging does not allocate.
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

    /// Waits until everything is written. Returns `false` if it is not within `timeout`.
    pub(super) fn wait_until_empty(&self, timeout: Duration) -> bool {
        let busy = |state: &mut State| state.writing || !state.is_empty();
        let waited = self.emptied.wait_timeout_while(self.state(), timeout, busy);
        let (_state, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        !waited.timed_out()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is consistent even after a panic: no change can be left half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const GENEROUS: Duration = Duration::from_secs(20);

    /// Takes the text; returns it and the number of lines that are missing after it.
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
    fn t131_a_line_that_does_not_fit_is_counted_without_blocking() {
        let queue = Queue::new();
        let line = [b'x'; 1000];
        let room = CAPACITY / line.len();
        for _ in 0..room + 5 {
            queue.push(&line);
        }
        // This line would fit, and would hide the loss of the others.
        queue.push(b"short\n");
        let (text, lost) = taken(&queue);
        assert_eq!((text.len(), lost), (room * line.len(), 6));
        queue.push(b"next\n");
        assert_eq!(taken(&queue), (b"next\n".to_vec(), 0));
    }

    #[test]
    fn a_patient_line_waits_for_room() {
        let queue = Queue::new();
        assert!(queue.push_within(&[b'x'; CAPACITY], Duration::ZERO));
        assert!(!queue.push_within(b"y", Duration::ZERO), "there is no room");
        thread::scope(|scope| {
            let waits = scope.spawn(|| queue.push_within(b"next\n", GENEROUS));
            let (text, lost) = taken(&queue);
            assert_eq!((text.len(), lost), (CAPACITY, 0), "\"y\" is not counted");
            assert!(waits.join().unwrap());
        });
        assert_eq!(taken(&queue), (b"next\n".to_vec(), 0));
    }

    #[test]
    fn t131_memory_is_bounded_even_with_long_lines() {
        let queue = Queue::new();
        queue.push(&vec![b'x'; CAPACITY + 1]);
        queue.push(b"y");
        assert_eq!(taken(&queue), (Vec::new(), 2));
    }

    #[test]
    fn t131_the_end_waits_for_the_log_but_not_indefinitely() {
        let queue = Queue::new();
        assert!(queue.wait_until_empty(Duration::ZERO), "no line waits");
        queue.push(b"line\n");
        assert!(!queue.wait_until_empty(Duration::ZERO), "a line waits");
        let (text, _) = taken(&queue);
        assert!(
            !queue.wait_until_empty(Duration::ZERO),
            "the line is being written"
        );
        thread::scope(|scope| {
            let writer = scope.spawn(|| queue.exchange(&mut text.clone()));
            assert!(queue.wait_until_empty(GENEROUS), "the line is written");
            queue.push(b"end\n");
            writer.join().unwrap();
        });
    }
}
