// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Tasks that wait for the same thing.

use std::collections::VecDeque;
use std::mem;
use std::task::Waker;

use crate::sync::Arc;
use crate::task::Task;

/// The most tasks that sleep. If one more wants to, the task that has slept longest is woken to ask
/// again.
const MAX: usize = 1024;

/// The tasks that sleep until something arrives that one of them may take. It is not known which of
/// them still want it: a dropped future does not say so. So all of them are woken.
///
/// Lives under a lock, so it returns every removed task to the caller, to wake or drop it after the
/// lock is released.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    asleep: VecDeque<Task>,
    /// The tasks whose wait was cancelled and that have not asked since; at most [`MAX`].
    cancelled: VecDeque<Arc<Task>>,
}

impl Tasks {
    /// Whether this task sleeps.
    pub(crate) fn has(&self, waker: &Waker) -> bool {
        self.asleep.iter().any(|task| task.is(waker))
    }

    /// Adds a task that goes to sleep. The caller must wake the task that is returned.
    pub(crate) fn push(&mut self, task: Task) -> Option<Task> {
        let longest = (self.asleep.len() >= MAX).then(|| self.asleep.pop_front());
        self.asleep.push_back(task);
        longest.flatten()
    }

    /// Ends the sleep of all tasks. The caller must wake those that are returned.
    pub(crate) fn wake_all(&mut self) -> VecDeque<Task> {
        mem::take(&mut self.asleep)
    }

    /// Like [`wake_all`](Self::wake_all); each of them will find that it was
    /// [cancelled](Self::take_cancelled).
    pub(crate) fn cancel_all(&mut self) -> Vec<Arc<Task>> {
        let mut woken: Vec<_> = self.asleep.drain(..).map(Arc::new).collect();
        self.cancelled.extend(woken.iter().map(Arc::clone));
        // Most likely the tasks of dropped futures; a wake-up harms no others.
        let most = self.cancelled.len().saturating_sub(MAX);
        woken.extend(self.cancelled.drain(..most));
        woken
    }

    /// Takes the record that this task's wait was cancelled after it went to sleep. Each
    /// cancellation is returned once.
    pub(crate) fn take_cancelled(&mut self, waker: &Waker) -> Option<Arc<Task>> {
        let at = self.cancelled.iter().position(|task| task.is(waker))?;
        self.cancelled.remove(at)
    }
}
