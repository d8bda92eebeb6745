// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

use crate::LoopError;
use crate::watch::Watcher;

/// Wakes the loop of a [`MuxerDriver`](crate::MuxerDriver), from any thread. Affects the current
/// wait, or otherwise the next one.
///
/// Several calls before the loop looks cause a single wake-up.
#[derive(Clone, Debug)]
pub struct Waker(Arc<EventFd>);

impl Waker {
    pub(super) fn new(watcher: &Watcher, word: u64) -> Result<Self, LoopError> {
        Ok(Self(Arc::new(watcher.eventfd(word)?)))
    }

    /// Wakes the loop. Never blocks.
    pub fn wake(&self) {
        // This fails only if the counter is full, which would take 2^64 calls.
        let _written = self.0.write(1);
    }
}
