// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A guest that is paused for a while, and may be replaced by another one.

use vsock_proto::Tick;

use crate::entry::Entry;
use crate::muxer::{Life, Muxer};

impl Muxer {
    /// Pauses for a guest that is paused: its queues are left alone until
    /// [`resume`](Self::resume), or until the next [`activate`](Self::activate) if another driver
    /// takes over.
    ///
    /// Connections stay. Data from their hosts waits in their streams, and arrives later. The muxer
    /// accepts no client during the pause, because a client may be meant for the next driver:
    /// clients wait in their backends.
    ///
    /// A paused guest would miss deadlines. Do not call [`on_timeout`](Self::on_timeout) during the
    /// pause, and leave its time out of the `now` that you pass afterwards.
    ///
    /// A muxer that is not active is unchanged.
    pub fn pause(&mut self) {
        if self.life == Life::Active {
            self.life = Life::Paused;
            self.unwatch_backends();
        }
    }

    /// Continues with the guest where it was [paused](Self::pause). A muxer that was not paused is
    /// unchanged.
    pub fn resume(&mut self) {
        if self.life == Life::Paused {
            self.life = Life::Active;
            self.watch_backends();
        }
    }

    /// Closes every connection on the host. The muxer stays active or paused, and owes the guest an
    /// RST for each connection that the guest knows about. So a guest that continues learns that
    /// they are closed; [`reset`](Self::reset) and [`transport_reset`](Self::transport_reset)
    /// forget the RSTs.
    ///
    /// This also closes clients whose command is incomplete. The same data is lost as with
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
