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

    /// Whether `waker` wakes the same task. Does not run a caller's code.
    pub(crate) fn is(&self, waker: &Waker) -> bool {
        self.0.as_ref().is_some_and(|own| own.will_wake(waker))
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
