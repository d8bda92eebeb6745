// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

/// Why a connection ended, for counters and logs. If there are several reasons, the first counts.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Ending {
    /// Both sides closed, and every byte has arrived.
    Clean,
    /// The guest refused the connection.
    GuestRefused,
    /// No host component accepted the connection, or the host client left before the guest
    /// answered.
    HostRefused,
    /// The guest provided no buffer for the REQUEST or the RESPONSE in time.
    NotDelivered,
    /// The REQUEST was not answered in time.
    TimedOut,
    /// The guest reset the connection.
    GuestReset,
    /// The host's stream broke.
    HostReset,
    /// The guest began a new connection with the same ports.
    Superseded,
    /// The guest had closed, and the host did not read the rest in time: bytes were lost.
    Forfeited,
    /// The guest violated the protocol.
    Violated,
    /// A message is longer than its receiver can hold. For a message from the host, the bound is
    /// the guest's buffer or the limit; for a message from the guest, it is what the host's stream
    /// accepts.
    MessageTooLong,
    /// The device was reset or is shutting down, or its owner ended this connection.
    Aborted,
}
