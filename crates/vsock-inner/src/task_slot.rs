// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The place of the waker that a side leaves, whose turn at it a flag of the word tells.
//!
//! The waiting side *lends* the place: it puts the waker there, and then sets [`TASK`] in the
//! word. Whoever takes that flag away, by one atomic change, has the place to itself: a side that
//! publishes, ends or cancels takes the waker out and gives the place back; the waiting side may
//! also take the flag away itself. So there is no lock on the way, and a waker leaves the place
//! once.
//!
//! The methods for the waiting side are called under a `&mut` of its half, so one at a time.

#![expect(
    unsafe_code,
    reason = "two sides share the place; the flag says whose turn it is"
)]

use crate::sync::{AtomicBool, AtomicU64, Ordering, Shared};
use crate::task::Task;
use crate::word::TASK;

/// See the documentation of the module.
#[derive(Debug)]
pub(crate) struct TaskSlot {
    task: Shared<Option<Task>>,
    /// Set by the waiting side when it lends the place, and cleared by whoever gives it back.
    /// While it is clear, the place is empty, and the waiting side's.
    lent: AtomicBool,
}

// SAFETY: a `Task` may be used by any thread, and whose turn it is at the place, the flag says.
unsafe impl Sync for TaskSlot {}

impl TaskSlot {
    pub(crate) fn new() -> Self {
        Self {
            task: Shared::new(None),
            lent: AtomicBool::new(false),
        }
    }

    /// For the waiting side: takes the place back, and out of it what was left. `Err`: a wake-up
    /// is at it, and will wake the task that was left.
    pub(crate) fn reclaim(&self, word: &AtomicU64) -> Result<Option<Task>, InFlight> {
        // ORDER: Acquire; partner: the release in `give_back`: the place is empty, and left.
        if !self.lent.load(Ordering::Acquire) {
            return Ok(None);
        }
        if let Some(left) = self.claim(word) {
            return Ok(Some(left));
        }
        // ORDER: Acquire; partner: as above.
        if self.lent.load(Ordering::Acquire) {
            return Err(InFlight);
        }
        Ok(None)
    }

    /// For the waiting side, after it has [reclaimed](Self::reclaim) the place: puts a task there,
    /// for whoever takes the flag away that the caller is about to set.
    pub(crate) fn lend(&self, task: Task) {
        // ORDER: Relaxed; partner: `reclaim`, on this side. The flag, which is set after it,
        // publishes it to `give_back`.
        self.lent.store(true, Ordering::Relaxed);
        // SAFETY: the place was given back, so no thread is at it, and none comes before the flag
        // is set. What came before, the acquire in `reclaim` has seen.
        let none = unsafe { self.task.replace(Some(task)) };
        debug_assert!(none.is_none());
    }

    /// For the waiting side, if the flag could not be set after [`lend`](Self::lend): takes the
    /// task out again.
    pub(crate) fn withdraw(&self) -> Option<Task> {
        self.give_back()
    }

    /// Wakes the task, if one is there.
    pub(crate) fn wake(&self, word: &AtomicU64) {
        if let Some(task) = self.claim(word) {
            task.wake();
        }
    }

    /// Changes the word from `old`, which has the flag, to `new` without it, and wakes the task.
    /// `false`: the word was another, and is as it was.
    pub(crate) fn wake_and_change(&self, word: &AtomicU64, old: u64, new: u64) -> bool {
        debug_assert!(old & TASK != 0);
        // ORDER: AcqRel; partners: as in `claim`, and as for a publication, which this is. Relaxed
        // of the failure: nothing is concluded from it.
        let changed = word.compare_exchange(old, new & !TASK, Ordering::AcqRel, Ordering::Relaxed);
        if changed.is_err() {
            return false;
        }
        if let Some(task) = self.give_back() {
            task.wake();
        }
        true
    }

    /// Takes the flag away, and if it was there, the task.
    fn claim(&self, word: &AtomicU64) -> Option<Task> {
        // ORDER: AcqRel; partners: the acquire sees the task that was left before the flag was
        // set; the release is for a waiting side that sets it again, and sees what this thread has
        // done before (a cancellation).
        let before = word.fetch_and(!TASK, Ordering::AcqRel);
        if before & TASK == 0 {
            return None;
        }
        self.give_back()
    }

    fn give_back(&self) -> Option<Task> {
        // SAFETY: this thread has taken the flag away, which only one does each time it is set; or
        // is the waiting side, and has not set it. So the place is its own until it gives it back.
        let task = unsafe { self.task.replace(None) };
        // ORDER: Release; partner: the acquire in `reclaim`, for the next one to be put there.
        self.lent.store(false, Ordering::Release);
        task
    }
}

/// A wake-up has taken the flag away, and not yet the task.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct InFlight;
