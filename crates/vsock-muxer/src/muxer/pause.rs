// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A guest that stands still for a while, and may turn out to have been another one.

use vsock_proto::Tick;

use crate::entry::Entry;
use crate::muxer::{Life, Muxer};

impl Muxer {
    /// The guest stands still: its queues are not looked at until [`resume`](Self::resume), or
    /// until the next [`activate`](Self::activate) if another driver comes.
    ///
    /// Connections stay. What their hosts write waits in their streams, and arrives later. No
    /// client is accepted meanwhile, because it may be meant for the next driver: it waits in its
    /// backend.
    ///
    /// A guest that stands still misses deadlines. Its owner calls [`on_timeout`](Self::on_timeout)
    /// for none of them meanwhile, and leaves the time of the pause out of what it passes as `now`
    /// after it.
    ///
    /// A muxer that is not active stays as it is.
    pub fn pause(&mut self) {
        if self.life == Life::Active {
            self.life = Life::Paused;
            self.unwatch_backends();
        }
    }

    /// The guest goes on where it was [paused](Self::pause). A muxer that was not paused stays as
    /// it is.
    pub fn resume(&mut self) {
        if self.life == Life::Paused {
            self.life = Life::Active;
            self.watch_backends();
        }
    }

    /// Every connection is closed on the host. Each that the guest knows of is owed its RST, and
    /// the muxer stays as it is: active, or paused. So where the guest goes on, it learns of it;
    /// [`reset`](Self::reset) and [`transport_reset`](Self::transport_reset) forget the RSTs.
    ///
    /// Clients whose command is not whole are closed as well. What is lost is that of
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
