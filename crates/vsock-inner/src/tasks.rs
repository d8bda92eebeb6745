// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The tasks that wait for a connection at a backlog.

use std::collections::VecDeque;
use std::mem;
use std::task::Waker;

use crate::sync::Arc;
use crate::task::Task;

/// The maximum number of wakers. One more wakes all the others, whose tasks poll again.
const MAX: usize = 1024;

/// The tasks that sleep until something arrives that one of them can take. A dropped future does
/// not say that it no longer wants it, so all of them are woken.
///
/// A task that is [not recognised](Task::is) can be asleep several times. That costs places and
/// spurious wake-ups, but it loses no wake-up.
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
    /// Whether this task is certain to be asleep.
    pub(crate) fn has(&self, waker: &Waker) -> bool {
        self.asleep.iter().any(|task| task.is(waker))
    }

    /// Adds a task. The caller must wake the tasks that are returned.
    pub(crate) fn push(&mut self, task: Task) -> VecDeque<Task> {
        // One task may have left all of these wakers. Waking only the first would make room for one
        // poll, which would wake that task again, and so on. So make room for many polls.
        let others = if self.asleep.len() >= MAX {
            self.wake_all()
        } else {
            VecDeque::new()
        };
        self.asleep.push_back(task);
        others
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

    /// Removes and returns the records that this task was cancelled while it slept. There are
    /// several if it was asleep several times; together they end one wait.
    pub(crate) fn take_cancelled(&mut self, waker: &Waker) -> Vec<Arc<Task>> {
        let mut taken = Vec::new();
        while let Some(at) = self
            .cancelled
            .iter()
            .position(|task| task.is_probably(waker))
        {
            taken.extend(self.cancelled.remove(at));
        }
        taken
    }

    /// Removes all records of cancelled tasks, because no later poll will wait.
    pub(crate) fn forget_cancelled(&mut self) -> VecDeque<Arc<Task>> {
        mem::take(&mut self.cancelled)
    }
}
