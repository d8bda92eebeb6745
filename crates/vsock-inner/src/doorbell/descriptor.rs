// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Polling a doorbell: the waiting side's descriptor is ready exactly while a call would not wait.
//!
//! The publishing side makes it ready, if the word was armed for it ([`FD`]). Only the waiting side
//! makes it not ready, and arms the word again, when it has used up what was there. Both happen
//! under the lock, so what the descriptor shows never lags behind a wake-up in flight. A side that
//! never takes its descriptor pays nothing for it.

use super::Doorbell;
use crate::ready_fd::ReadyFd;
use crate::sync::Ordering;
use crate::word::{FD, Position};

impl Doorbell {
    /// Registers the descriptor that `make` returns, unless this side already has one. From then on
    /// it is ready exactly while the position is `want` or the direction has ended. The caller must
    /// call [`settle`](Self::settle) whenever `want` changes.
    pub(crate) fn take_fd(&self, want: Position, make: impl FnOnce() -> ReadyFd) {
        let fd = &mut *self.lock();
        if fd.is_none() {
            // ORDER: Relaxed; partner: `is_taken`, on this side.
            self.taken.store(true, Ordering::Relaxed);
            self.settle_locked(fd.insert(make()), want);
        }
    }

    /// Whether this side has taken its descriptor.
    #[inline]
    pub(crate) fn is_taken(&self) -> bool {
        // ORDER: Relaxed; partner: `take_fd`, on the same side.
        self.taken.load(Ordering::Relaxed)
    }

    /// Updates the descriptor after this side has made `want` its next position.
    pub(crate) fn settle(&self, want: Position) {
        // Look before taking the lock. If the other side has published in the meantime, the
        // descriptor can stay ready, which saves two system calls.
        if self.is_taken() && !self.load().is_ready(want) {
            if let Some(fd) = &mut *self.lock() {
                self.settle_locked(fd, want);
            }
        }
    }

    /// Under the lock no wake-up is half done: the descriptor shows the result of the last one. A
    /// publisher that sees the word armed again waits for the lock, so it comes after the change
    /// made here.
    fn settle_locked(&self, fd: &mut ReadyFd, want: Position) {
        self.set_wanted(want);
        let waits = self.arm(FD, want);
        if !waits {
            self.disarm(FD);
        }
        fd.set_ready(!waits);
    }

    /// Makes a new edge at the descriptor, if it was taken. Its owner may want to know of an event
    /// even though the descriptor was ready before.
    pub(crate) fn new_edge(&self) {
        if let Some(fd) = &mut *self.lock() {
            self.disarm(FD);
            fd.new_edge();
        }
    }

    /// What a poll of the descriptor would report.
    #[cfg(all(test, loom))]
    pub(crate) fn polls_ready(&self) -> bool {
        self.lock().as_ref().is_some_and(ReadyFd::polls_ready)
    }

    /// How often an edge-triggered poll was woken.
    #[cfg(all(test, loom))]
    pub(crate) fn edges(&self) -> usize {
        self.lock().as_ref().map_or(0, ReadyFd::edges)
    }
}
