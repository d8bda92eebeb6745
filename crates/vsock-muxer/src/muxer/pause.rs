// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Pausing a muxer while its guest is paused and, possibly, replaced.

use vsock_proto::Tick;

use crate::entry::Entry;
use crate::muxer::{Life, Muxer};

impl Muxer {
    /// Pauses the muxer while its guest is paused: the guest's queues are not used until
    /// [`resume`](Self::resume), or until the next [`activate`](Self::activate) if another driver
    /// takes over.
    ///
    /// Connections are kept. Data from the host waits in its streams and arrives later. The muxer
    /// accepts no clients during the pause, because a client may be meant for the next driver;
    /// clients wait in their backends.
    ///
    /// A paused guest would miss deadlines: do not call [`on_timeout`](Self::on_timeout) during the
    /// pause, and exclude the length of the pause from the `now` that you pass afterwards.
    ///
    /// Has no effect on a muxer that is not active.
    pub fn pause(&mut self) {
        if self.life == Life::Active {
            self.life = Life::Paused;
            self.unwatch_backends();
        }
    }

    /// Continues with the guest where it was [paused](Self::pause). Has no effect on a muxer that
    /// is not paused.
    pub fn resume(&mut self) {
        if self.life == Life::Paused {
            self.life = Life::Active;
            self.watch_backends();
        }
    }

    /// Closes every connection on the host's side.
    ///
    /// The muxer stays active or paused, and an RST becomes pending for each connection of which
    /// the guest has a record, so that a guest that continues learns that they are closed. In
    /// contrast, [`reset`](Self::reset) and [`transport_reset`](Self::transport_reset) drop the
    /// RSTs.
    ///
    /// Clients whose command is incomplete are closed as well. The same data is lost as with
    /// [`begin_shutdown`](Self::begin_shutdown).
    pub fn cut(&mut self, now: Tick) {
        if self.life == Life::Inactive {
            return;
        }
        for slot in self.table.slots() {
            match self.table.entry(slot) {
                Some(Entry::Connection(entry)) => {
                    entry.conn.shut_down(now);
                    self.review(now, slot);
                }
                Some(Entry::Handshake(_)) => self.end_handshake(slot),
                None => {}
            }
        }
    }
}
