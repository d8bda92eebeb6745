// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use crate::state::Event;
use crate::{Connection, Tick};

/// Why a connection ended, for counters and logs. The first reason stays.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Ending {
    /// Both sides closed, and every byte has arrived.
    Clean,
    /// The guest refused the connection.
    GuestRefused,
    /// No host component took the connection, or it went away before the guest had answered.
    HostRefused,
    /// The guest posted no buffer for the REQUEST or the RESPONSE in time.
    NotDelivered,
    /// The other side did not answer the REQUEST in time.
    TimedOut,
    /// The guest reset the connection.
    GuestReset,
    /// The host's stream broke.
    HostReset,
    /// The guest began a new connection with the same ports.
    Superseded,
    /// The guest had closed, and the host took too long over the rest: bytes were lost.
    Forfeited,
    /// The guest broke the protocol.
    Violated,
    /// A message is longer than its receiver can hold: than the guest's buffer or the limit, where the
    /// host has sent it, or than the host's stream takes.
    MessageTooLong,
    /// The device was reset, or has said farewell to its guest.
    Aborted,
}

impl Connection {
    /// Ends the connection because nothing that the guest knew counts any more: it was reset, or
    /// the device was. The guest is told nothing.
    pub fn abort(&mut self, now: Tick) {
        self.end(now, Event::Aborted, Ending::Aborted);
    }

    /// Ends the connection because the device is about to stop. A guest that knows of it is owed an
    /// RST, before which nothing else is sent; one that has not been given the REQUEST, or has left
    /// already, is told nothing.
    pub fn farewell(&mut self, now: Tick) {
        self.end(now, Event::Farewell, Ending::Aborted);
    }
}
