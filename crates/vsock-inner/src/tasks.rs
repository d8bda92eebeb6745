// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Tasks that wait for the same thing.

use std::collections::VecDeque;
use std::mem;
use std::task::Waker;

use crate::sync::Arc;
use crate::task::Task;

/// How many tasks sleep at most. Where one more wants to, the one that has slept longest is woken
/// to ask again.
const MAX: usize = 1024;

/// The tasks that sleep until something comes that one of them may have. Which of them still wants
/// it is not known: a future that is dropped does not say so. So all of them are woken.
///
/// Lives under a lock, and so gives every task that leaves to the caller, to wake or to drop it
/// after that.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    asleep: VecDeque<Task>,
    /// Those whose wait was cancelled, and which have not asked since; [`MAX`] at most.
    cancelled: VecDeque<Arc<Task>>,
}

impl Tasks {
    /// Whether this one sleeps.
    pub(crate) fn has(&self, waker: &Waker) -> bool {
        self.asleep.iter().any(|task| task.is(waker))
    }

    /// This one sleeps now; the one that is returned is to be woken.
    pub(crate) fn push(&mut self, task: Task) -> Option<Task> {
        let longest = (self.asleep.len() >= MAX).then(|| self.asleep.pop_front());
        self.asleep.push_back(task);
        longest.flatten()
    }

    /// No task sleeps any more; these are to be woken.
    pub(crate) fn wake_all(&mut self) -> VecDeque<Task> {
        mem::take(&mut self.asleep)
    }

    /// As [`wake_all`](Self::wake_all); each of them will find that it was
    /// [cancelled](Self::take_cancelled).
    pub(crate) fn cancel_all(&mut self) -> Vec<Arc<Task>> {
        let mut woken: Vec<_> = self.asleep.drain(..).map(Arc::new).collect();
        self.cancelled.extend(woken.iter().map(Arc::clone));
        // Of futures that were dropped, most likely; to be woken costs others nothing.
        let most = self.cancelled.len().saturating_sub(MAX);
        woken.extend(self.cancelled.drain(..most));
        woken
    }

    /// What says that the wait of this task was cancelled since it went to sleep, once.
    pub(crate) fn take_cancelled(&mut self, waker: &Waker) -> Option<Arc<Task>> {
        let at = self.cancelled.iter().position(|task| task.is(waker))?;
        self.cancelled.remove(at)
    }
}
