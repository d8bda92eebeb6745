// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The waker of a sleeping task.

use std::task::Waker;

use crate::sync::contain;

/// A waker. It runs a caller's code, which may call back into any stream and may panic.
///
/// It must be cloned, woken and dropped without holding a lock of this crate. A panic in it is the
/// task's problem, and must not reach the peer that happens to wake or drop it.
#[derive(Debug)]
pub(crate) struct Task(Option<Waker>);

impl Task {
    pub(crate) fn new(waker: &Waker) -> Self {
        Self(Some(waker.clone()))
    }

    /// Whether `waker` is certain to wake the same task. Does not run a caller's code.
    ///
    /// `false` proves nothing: compilers duplicate tables of functions, so even a waker and its
    /// clone can differ, and a combinator can make another waker for each poll. So use this only to
    /// save a clone or a place, where a wrong `false` costs no more than that.
    pub(crate) fn is(&self, waker: &Waker) -> bool {
        self.0.as_ref().is_some_and(|own| own.will_wake(waker))
    }

    /// Whether `waker` probably wakes the same task: it [does](Self::is), or it has the same data,
    /// which this one keeps from being reused. Does not run a caller's code.
    ///
    /// `true` can be wrong: wakers without data, or of tasks that share it, can differ only in
    /// their tables. So never use this to leave out a wake-up.
    pub(crate) fn is_probably(&self, waker: &Waker) -> bool {
        let same_data = |own: &Waker| !own.data().is_null() && own.data() == waker.data();
        self.is(waker) || self.0.as_ref().is_some_and(same_data)
    }

    pub(crate) const fn waker(&self) -> Option<&Waker> {
        self.0.as_ref()
    }

    pub(crate) fn wake(mut self) {
        if let Some(waker) = self.0.take() {
            contain(|| waker.wake());
        }
    }

    pub(crate) fn wake_by_ref(&self) {
        if let Some(waker) = &self.0 {
            contain(|| waker.wake_by_ref());
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if let Some(waker) = self.0.take() {
            contain(|| drop(waker));
        }
    }
}
