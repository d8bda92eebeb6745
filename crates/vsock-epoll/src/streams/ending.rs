// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Ending a loop: in order, or immediately.

use std::time::{Duration, Instant};

use super::{Phase, Streams};
use crate::StreamId;

impl<T> Streams<T> {
    /// Ends the loop in order: accepts no more streams, stops reading, writes everything that was
    /// accepted, and then closes each stream. Data that a peer does not take within `timeout` is
    /// lost; `None` waits indefinitely. Afterwards [`is_finished`](Self::is_finished) returns
    /// `true`.
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

    /// Ends the loop immediately: closes every stream, and accepts no more. Data in backlogs is
    /// lost.
    pub fn stop(&mut self) {
        self.phase = Phase::Stopped;
        let ids: Vec<StreamId> = self.table.ids().collect();
        for id in ids {
            self.close(id);
        }
        self.rouse();
    }

    /// Returns whether the loop has been drained or stopped, all streams are closed, and the
    /// handler has been told of each.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.phase != Phase::Serving && self.is_empty() && self.departed.is_empty()
    }
}
