// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The slot for a waker of the waiting side. A flag in the doorbell's word says who owns it.
//!
//! The waiting side *lends* the slot: it puts the waker in, then sets [`TASK`] in the word. The
//! side that clears the flag, by one atomic change, owns the slot. A side that publishes, ends or
//! cancels takes the waker out and gives the slot back. The waiting side can also clear the flag
//! itself. So no lock is needed, and each waker is taken out exactly once.
//!
//! ```text
//! waiting side owns it --lend, arm (sets TASK)--> lent --clear TASK--> taker owns it
//!         ^                                                                  |
//!         +-------------------------- give back -----------------------------+
//! ```
//!
//! The methods for the waiting side are called with `&mut` access to its half, so only one at a
//! time.

#![expect(
    unsafe_code,
    reason = "two sides share the slot; the flag says which one owns it"
)]

use crate::sync::{AtomicBool, AtomicU64, Ordering, Shared};
use crate::task::Task;
use crate::word::TASK;

/// A slot for one waker.
#[derive(Debug)]
pub(crate) struct TaskSlot {
    task: Shared<Option<Task>>,
    /// Set by the waiting side when it lends the slot, and cleared when the slot is given back.
    /// While it is clear, the slot is empty and belongs to the waiting side.
    lent: AtomicBool,
}

// SAFETY: a `Task` may be used by any thread, and the flag says which side may access the slot.
unsafe impl Sync for TaskSlot {}

impl TaskSlot {
    pub(crate) fn new() -> Self {
        Self {
            task: Shared::new(None),
            lent: AtomicBool::new(false),
        }
    }

    /// For the waiting side: takes the slot back, with the task in it, if any. `Err`: a wake-up is
    /// in progress and will wake that task.
    pub(crate) fn reclaim(&self, word: &AtomicU64) -> Result<Option<Task>, InFlight> {
        // ORDER: Acquire; partner: the release in `give_back`. The slot is empty and no longer
        // accessed.
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

    /// For the waiting side, after it has [reclaimed](Self::reclaim) the slot: puts a task in. The
    /// caller then sets the flag, and the side that clears it takes the task.
    pub(crate) fn lend(&self, task: Task) {
        // ORDER: Relaxed; partner: `reclaim`, on this side. Setting the flag afterwards publishes
        // this to `give_back`.
        self.lent.store(true, Ordering::Relaxed);
        // SAFETY: the slot has been given back, so no other thread accesses it, and none will
        // before the flag is set. The acquire in `reclaim` has seen all earlier accesses.
        let none = unsafe { self.task.replace(Some(task)) };
        debug_assert!(none.is_none());
    }

    /// For the waiting side, if the flag was not set after [`lend`](Self::lend): takes the task out
    /// again.
    pub(crate) fn withdraw(&self) -> Option<Task> {
        self.give_back()
    }

    /// Wakes the task, if there is one.
    pub(crate) fn wake(&self, word: &AtomicU64) {
        if let Some(task) = self.claim(word) {
            task.wake();
        }
    }

    /// Changes the word from `old`, which has the flag, to `new` without it, and wakes the task.
    /// Returns `false` without changing anything if the word is not `old`.
    pub(crate) fn wake_and_change(&self, word: &AtomicU64, old: u64, new: u64) -> bool {
        debug_assert!(old & TASK != 0);
        // ORDER: AcqRel; partners: as in `claim`, and as for a publication, which this is too.
        // Relaxed on failure, because nothing is concluded from it.
        let changed = word.compare_exchange(old, new & !TASK, Ordering::AcqRel, Ordering::Relaxed);
        if changed.is_err() {
            return false;
        }
        if let Some(task) = self.give_back() {
            task.wake();
        }
        true
    }

    /// Clears the flag, and takes the task if the flag was set.
    fn claim(&self, word: &AtomicU64) -> Option<Task> {
        // ORDER: AcqRel; partners: the acquire sees the task, which was put in before the flag was
        // set. The release is for a waiting side that sets the flag again, which then sees what
        // this thread has done before (a cancellation).
        let before = word.fetch_and(!TASK, Ordering::AcqRel);
        if before & TASK == 0 {
            return None;
        }
        self.give_back()
    }

    fn give_back(&self) -> Option<Task> {
        // SAFETY: either this thread has cleared the flag, which only one thread does each time it
        // is set, or it is the waiting side and has not set it. So it owns the slot until it gives
        // it back.
        let task = unsafe { self.task.replace(None) };
        // ORDER: Release; partner: the acquire in `reclaim`, before the next task is put in.
        self.lent.store(false, Ordering::Release);
        task
    }
}

/// A wake-up has cleared the flag, but has not yet taken the task.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct InFlight;
