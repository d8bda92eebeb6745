// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Waiting at a doorbell: a thread in a blocking call, or a task that leaves its waker, and the
//! cancellation of either.
//!
//! Both arm the word and then look at the count of cancellations, while a canceller changes the
//! count and then looks for a waiter. So one of the two always sees the other. A thread and its
//! canceller meet under the lock; a task and its canceller meet at the word, without a lock.

use std::sync::PoisonError;
use std::task::{Poll, Waker};
use std::time::Instant;

use super::Doorbell;
use crate::cancels::Cancels;
use crate::sync::Ordering;
use crate::task::Task;
use crate::task_slot::InFlight;
use crate::word::{PARKED, Position, TASK};

/// How a wait has ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Waited {
    /// The position has been reached, or the direction has ended.
    Ready,
    /// The deadline came first.
    TimedOut,
    /// A cancellation came first.
    Cancelled,
}

impl Doorbell {
    /// Sleeps until the position is `want`, the direction ends, the deadline passes, or the wait
    /// has been cancelled since `since`.
    pub(crate) fn wait(&self, want: Position, deadline: Option<Instant>, since: Cancels) -> Waited {
        let mut fd = self.lock();
        self.set_wanted(want);
        // `arm` fails once the position has been reached, so no wake-up between the look and the
        // sleep is lost. It is repeated after each wake-up, which may be spurious.
        while self.arm(PARKED, want) {
            if self.cancels().end(since) {
                return self.stop_waiting(want, Waited::Cancelled);
            }
            fd = match deadline {
                None => {
                    let woken = self.parked.wait(fd);
                    woken.unwrap_or_else(PoisonError::into_inner)
                }
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return self.stop_waiting(want, Waited::TimedOut);
                    }
                    let woken = self.parked.wait_timeout(fd, left);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        Waited::Ready
    }

    /// Ends a sleep, under the lock: as `Ready` if the position has been reached in the meantime,
    /// otherwise for the reason `why`.
    fn stop_waiting(&self, want: Position, why: Waited) -> Waited {
        if self.disarm(PARKED).is_ready(want) {
            Waited::Ready
        } else {
            why
        }
    }

    /// Leaves the waker of a task, to be woken once when [`wait`](Self::wait) would return, unless
    /// it would return immediately. Replaces a waker that was left before.
    pub(crate) fn poll_wait(&self, waker: &Waker, want: Position, since: Cancels) -> Poll<Waited> {
        let left = match self.task.reclaim(&self.word.0) {
            Ok(left) => left,
            Err(InFlight) => {
                // The slot is still occupied by a waker that is just being woken. This one cannot
                // be left, so wake it now: its task polls again.
                waker.wake_by_ref();
                return Poll::Pending;
            }
        };
        // A replaced waker is dropped when this function returns, after the slot has been lent.
        let (task, _replaced) = match left {
            Some(task) if task.is(waker) => (task, None),
            other => (Task::new(waker), other),
        };
        self.task.lend(task);
        // A descriptor waits for the same `want`. Under its lock, so that a concurrent `wake` sees
        // `want` and the flag either both as before or both as after.
        let locked = self.is_taken().then(|| self.lock());
        self.set_wanted(want);
        let armed = self.arm(TASK, want);
        drop(locked);
        if !armed {
            // The flag was never set, so the slot is still this side's.
            drop(self.task.withdraw());
            return Poll::Ready(Waited::Ready);
        }
        if !self.cancels().end(since) {
            return Poll::Pending; // a later cancellation finds the flag
        }
        // Cancelled. If a wake-up already has the task, it is spurious.
        drop(self.task.reclaim(&self.word.0));
        Poll::Ready(if self.load().is_ready(want) {
            Waited::Ready
        } else {
            Waited::Cancelled
        })
    }

    /// Ends the current wait of this side, and every later one until [`resume`](Self::resume).
    pub(crate) fn cancel(&self) {
        self.change_cancels(Cancels::cancelled);
        // The count was changed under the lock. A waiting thread has therefore either seen the
        // change, or is asleep and receives this notification.
        self.parked.notify_one();
        self.task.wake(&self.word.0);
    }

    /// Lets this side wait again.
    pub(crate) fn resume(&self) {
        self.change_cancels(Cancels::resumed);
    }

    fn change_cancels(&self, change: impl Fn(Cancels) -> Cancels) {
        let _locked = self.lock();
        let cancels = change(self.cancels()).to_bits();
        // ORDER: Relaxed; partners: `cancels` in `wait`, under the same lock; in `poll_wait`,
        // through the word, in which `cancel` then clears the flag of the task. A side that spins
        // looks again.
        self.cancels.store(cancels, Ordering::Relaxed);
    }

    /// Returns the current count of cancellations. A call remembers it when it begins to wait.
    pub(crate) fn cancels(&self) -> Cancels {
        // ORDER: Relaxed; partner: `change_cancels`, earlier under the lock. A cancel and resume
        // that the caller has ordered before its call is seen by coherence. Without such an order
        // the call may end immediately, as if it had begun before the cancellation.
        Cancels::from_bits(self.cancels.load(Ordering::Relaxed))
    }
}
