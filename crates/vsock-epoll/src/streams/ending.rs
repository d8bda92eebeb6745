// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The end of a loop: in good order, or immediately.

use std::time::{Duration, Instant};

use super::{Phase, Streams};
use crate::StreamId;

impl<T> Streams<T> {
    /// Ends regularly: takes no more streams, reads no more, writes all that was accepted, and then
    /// closes each stream. What its peer does not take within `timeout` is lost; `None` waits for
    /// ever. [`is_finished`](Self::is_finished) tells when there is none left.
    pub fn drain(&mut self, timeout: Option<Duration>) {
        if self.phase == Phase::Stopped {
            return;
        }
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        self.phase = Phase::Draining(until);
        let ids: Vec<StreamId> = self.table.ids().collect();
        ids.into_iter().for_each(|id| self.finish_and_close(id));
        self.arm();
        self.rouse();
    }

    /// Ends immediately: closes every stream, and takes no more. What waits in backlogs is lost.
    pub fn stop(&mut self) {
        self.phase = Phase::Stopped;
        let ids: Vec<StreamId> = self.table.ids().collect();
        for id in ids {
            self.close(id);
        }
        self.rouse();
    }

    /// Whether the loop was drained or stopped, and everything is closed and told.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.phase != Phase::Serving && self.is_empty() && self.departed.is_empty()
    }
}
