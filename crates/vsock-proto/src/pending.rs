// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a connection owes the guest, and in which order it is sent.

/// A packet that a connection owes the guest, most urgent first.
///
/// The order is part of the type: where several are owed, the smaller goes first.
///
/// | before | because |
/// |---|---|
/// | `Reset` before all | nothing that is owed besides means anything to a guest that is told to forget the connection |
/// | `Request`, `Response` before the rest | a guest that waits for a RESPONSE fails its `connect` on anything else |
/// | `Shutdown` before data | a guest that keeps writing to a host which no longer reads shall know immediately; an end of sending becomes owed only when there is no data left |
/// | `CreditRequest` before data | it is owed when data cannot flow, or soon cannot |
/// | `CreditUpdate` last | every packet carries credit, so any other makes it superfluous and saves a buffer |
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub(crate) enum Owed {
    /// An RST.
    Reset,
    /// The REQUEST of a host-initiated connection.
    Request,
    /// The RESPONSE to a guest's REQUEST.
    Response,
    /// A SHUTDOWN with all flags that hold so far.
    Shutdown,
    /// A `CREDIT_REQUEST`.
    CreditRequest,
    /// Payload, if the host has any.
    Data,
    /// A `CREDIT_UPDATE`.
    CreditUpdate,
}

impl Owed {
    /// All of them, most urgent first.
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

/// The set of packets that a connection owes.
///
/// A set, not a queue: each kind is owed once or not at all, so a guest cannot make it grow.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Pending(u8);

impl Pending {
    /// Nothing is owed.
    pub(crate) const NONE: Self = Self(0);

    /// Adds one; owing it twice is owing it once.
    pub(crate) const fn insert(&mut self, owed: Owed) {
        self.0 |= owed.bit();
    }

    /// Takes one out, if it is there.
    pub(crate) const fn remove(&mut self, owed: Owed) {
        self.0 &= !owed.bit();
    }

    /// Forgets all.
    pub(crate) const fn clear(&mut self) {
        self.0 = 0;
    }

    /// Whether this one is owed.
    #[must_use]
    pub(crate) const fn contains(self, owed: Owed) -> bool {
        self.0 & owed.bit() != 0
    }

    /// Whether nothing is owed.
    #[must_use]
    pub(crate) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The most urgent one.
    #[must_use]
    pub(crate) fn first(self) -> Option<Owed> {
        Owed::ALL.get(self.0.trailing_zeros() as usize).copied()
    }
}

#[cfg(test)]
mod tests;
