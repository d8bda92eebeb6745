// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The tasks that wait for a connection at a backlog.

use std::collections::VecDeque;
use std::mem;
use std::task::Waker;

use crate::sync::Arc;
use crate::task::Task;

/// The maximum number of sleeping tasks. One more wakes the task that has slept longest, to poll
/// again.
const MAX: usize = 1024;

/// The tasks that sleep until something arrives that one of them can take. A dropped future does
/// not say that it no longer wants it, so all of them are woken.
///
/// This is kept under a lock. It returns every removed task to the caller, which wakes or drops it
/// after releasing the lock.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    asleep: VecDeque<Task>,
    /// The tasks whose wait was cancelled and that have not polled since. At most [`MAX`].
    cancelled: VecDeque<Arc<Task>>,
}

impl Tasks {
    /// Whether this task is asleep.
    pub(crate) fn has(&self, waker: &Waker) -> bool {
        self.asleep.iter().any(|task| task.is(waker))
    }

    /// Adds a task. The caller must wake the task that is returned.
    pub(crate) fn push(&mut self, task: Task) -> Option<Task> {
        let longest = (self.asleep.len() >= MAX).then(|| self.asleep.pop_front());
        self.asleep.push_back(task);
        longest.flatten()
    }

    /// Removes all sleeping tasks. The caller must wake them.
    pub(crate) fn wake_all(&mut self) -> VecDeque<Task> {
        mem::take(&mut self.asleep)
    }

    /// Like [`wake_all`](Self::wake_all), and records for each task that it was
    /// [cancelled](Self::take_cancelled).
    pub(crate) fn cancel_all(&mut self) -> Vec<Arc<Task>> {
        let mut woken: Vec<_> = self.asleep.drain(..).map(Arc::new).collect();
        self.cancelled.extend(woken.iter().map(Arc::clone));
        // Drop the oldest records. Their futures were probably dropped; otherwise this wakes them
        // once more.
        let most = self.cancelled.len().saturating_sub(MAX);
        woken.extend(self.cancelled.drain(..most));
        woken
    }

    /// Removes and returns the record that this task was cancelled while it slept. Each
    /// cancellation is returned once.
    pub(crate) fn take_cancelled(&mut self, waker: &Waker) -> Option<Arc<Task>> {
        let at = self.cancelled.iter().position(|task| task.is(waker))?;
        self.cancelled.remove(at)
    }
}
