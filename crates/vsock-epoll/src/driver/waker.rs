// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

use crate::LoopError;
use crate::watch::Watcher;

/// Wakes the loop of a [`MuxerDriver`](crate::MuxerDriver), from any thread: the one that waits, or
/// the next that does.
///
/// However often it is called before the loop looks, the loop wakes once.
#[derive(Clone, Debug)]
pub struct Waker(Arc<EventFd>);

impl Waker {
    pub(super) fn new(watcher: &Watcher, word: u64) -> Result<Self, LoopError> {
        Ok(Self(Arc::new(watcher.eventfd(word)?)))
    }

    /// Wakes the loop. It never waits.
    pub fn wake(&self) {
        // It fails if the counter is full, which would take as many calls as it can count.
        let _written = self.0.write(1);
    }
}
