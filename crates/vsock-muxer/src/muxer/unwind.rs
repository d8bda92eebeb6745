// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Consistency after a panic in foreign code: that of a stream, a backend or the guest's side.

use crate::action::CloseMode;
use crate::busy::Busy;
use crate::entry::Entry;
use crate::muxer::{Life, Muxer};
use crate::ports::PortAllocator;
use crate::timers::Timers;
use crate::waiting::Waiting;

/// A guard that closes all connections unless the call has returned.
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
    /// Makes a call that runs foreign code. If a panic leaves the call, its work remains half done:
    /// a connection might be in no queue, or credit might never be returned. Every connection
    /// therefore ends.
    pub(super) fn unwinding<R>(&mut self, call: impl FnOnce(&mut Self) -> R) -> R {
        let mut guard = Unwinding {
            muxer: self,
            ended: false,
        };
        let result = call(guard.muxer);
        guard.ended = true;
        result
    }

    /// Resets the muxer without relying on anything that the call has left behind. Because a second
    /// panic would abort the process, no method of a stream is called; streams are passed on to be
    /// aborted.
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
