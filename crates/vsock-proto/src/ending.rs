// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

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
    /// A message is longer than its receiver can hold: than the guest's buffer or the limit, where
    /// the host has sent it, or than the host's stream takes.
    MessageTooLong,
    /// The device was reset or is shutting down, or its owner has ended this connection.
    Aborted,
}
