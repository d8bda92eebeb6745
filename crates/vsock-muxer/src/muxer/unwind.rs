// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What holds after a panic of code that is not ours: a stream's, a backend's, that of the guest's
//! side.

use crate::action::CloseMode;
use crate::busy::Busy;
use crate::entry::Entry;
use crate::muxer::{Life, Muxer};
use crate::ports::PortAllocator;
use crate::timers::Timers;
use crate::waiting::Waiting;

/// Gives the muxer up, unless the call has come to its end.
struct Unwinding<'a> {
    muxer: &'a mut Muxer,
    ended: bool,
}

impl Drop for Unwinding<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.muxer.give_up();
        }
    }
}

impl Muxer {
    /// Makes a call in which code runs that is not ours. If a panic leaves it, what the call has
    /// begun would never be ended: a connection that is in no queue, credit that is never given
    /// back. So every connection ends with it.
    pub(super) fn unwinding<R>(&mut self, call: impl FnOnce(&mut Self) -> R) -> R {
        let mut guard = Unwinding {
            muxer: self,
            ended: false,
        };
        let result = call(guard.muxer);
        guard.ended = true;
        result
    }

    /// As a reset, of which nothing relies on what the call has left: a second panic would be the
    /// end of the process, so no stream is asked anything, and they are aborted as they are.
    fn give_up(&mut self) {
        self.life = Life::Inactive;
        self.unwatch_backends();
        self.rxq.clear();
        self.batch.clear();
        self.timers = Timers::new();
        self.accept_timers = Timers::new();
        self.waiting = Waiting::default();
        self.busy = Busy::default();
        self.ports =
            PortAllocator::new(self.config.host_ports()).starting_at(self.ports.next_port());
        for entry in self.table.clear() {
            let host = match entry {
                Entry::Handshake(handshake) => Some(handshake.host),
                Entry::Connection(entry) => entry.host,
            };
            if let Some(host) = host {
                host.close(CloseMode::Abort, &mut self.actions);
            }
        }
    }
}
