// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What holds after a panic of the code that moves payload, which is the caller's.

use crate::state::Event;
use crate::{Connection, Ending, Tick};

/// Ends the connection, unless the call has come to its end.
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

impl Connection {
    /// Lets payload be moved by code that is not ours. If a panic leaves it, nobody knows what the stream
    /// has taken: for the connection that is a broken stream.
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
