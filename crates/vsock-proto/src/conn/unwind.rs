// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Consistency after a panic in foreign code that moves payload.

use crate::state::Event;
use crate::{Connection, Ending, Tick};

impl Connection {
    /// Calls foreign code that moves payload. If it panics, it is unknown how much was transferred,
    /// so the connection ends as it does with a broken stream.
    pub(super) fn unwinding<R>(&mut self, now: Tick, call: impl FnOnce(&mut Self) -> R) -> R {
        let mut guard = Unwinding {
            conn: self,
            now,
            ended: false,
        };
        let result = call(guard.conn);
        guard.ended = true;
        result
    }
}

/// A guard that ends the connection unless the call has returned.
struct Unwinding<'a> {
    conn: &'a mut Connection,
    now: Tick,
    ended: bool,
}

impl Drop for Unwinding<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.conn.end(self.now, Event::HostGone, Ending::HostReset);
        }
    }
}
