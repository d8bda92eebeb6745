// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The packets that a connection has to send to the guest, and their order.

/// A kind of packet that is pending for the guest, most urgent first.
///
/// The derived order is the order of transmission:
///
/// | order | reason |
/// |---|---|
/// | `Reset` before all others | a guest that is told to forget the connection has no use for any
/// other packet |
/// | `Request`, `Response` before the rest | while a guest waits for a RESPONSE, any other packet
/// makes its `connect` fail |
/// | `Shutdown` before data | a guest that keeps writing to a host that no longer reads should
/// learn so immediately; an end of sending becomes pending only when no data is left |
/// | `CreditRequest` before data | it becomes pending when data cannot flow, or soon will not be
/// able to |
/// | `CreditUpdate` last | every packet carries credit, so any other packet makes the update
/// superfluous and saves a buffer |
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub(crate) enum Owed {
    /// An RST.
    Reset,
    /// The REQUEST of a host-initiated connection.
    Request,
    /// The RESPONSE to a guest's REQUEST.
    Response,
    /// A SHUTDOWN with all flags that are set so far.
    Shutdown,
    /// A `CREDIT_REQUEST`.
    CreditRequest,
    /// Payload, if the host has any.
    Data,
    /// A `CREDIT_UPDATE`.
    CreditUpdate,
}

impl Owed {
    /// All kinds, most urgent first.
    pub(crate) const ALL: [Self; 7] = [
        Self::Reset,
        Self::Request,
        Self::Response,
        Self::Shutdown,
        Self::CreditRequest,
        Self::Data,
        Self::CreditUpdate,
    ];

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// The set of pending packets of a connection.
///
/// Because it is a set and not a queue, each kind is pending at most once and a guest cannot make
/// it grow.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Pending(u8);

impl Pending {
    /// The empty set.
    pub(crate) const NONE: Self = Self(0);

    /// Adds a packet. Adding it twice has no further effect.
    pub(crate) const fn insert(&mut self, owed: Owed) {
        self.0 |= owed.bit();
    }

    /// Removes a packet, if it is pending.
    pub(crate) const fn remove(&mut self, owed: Owed) {
        self.0 &= !owed.bit();
    }

    /// Removes all packets.
    pub(crate) const fn clear(&mut self) {
        self.0 = 0;
    }

    /// Returns whether this packet is pending.
    #[must_use]
    pub(crate) const fn contains(self, owed: Owed) -> bool {
        self.0 & owed.bit() != 0
    }

    /// Returns whether no packet is pending.
    #[must_use]
    pub(crate) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns the most urgent packet.
    #[must_use]
    pub(crate) fn first(self) -> Option<Owed> {
        Owed::ALL.get(self.0.trailing_zeros() as usize).copied()
    }
}

#[cfg(test)]
mod tests;
