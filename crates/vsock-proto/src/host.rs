// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The host's side of a connection: what is to be done with its stream.

/// Something to do with the host's stream. The smaller is to be done first.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub enum HostAction {
    /// Tell the client of a host-initiated connection that the guest has accepted. Where it awaits
    /// a line of text, that line is already the first in the backlog.
    Confirm,
    /// The guest will send no more, and all that it sent was taken: `shutdown(Write)`.
    ShutdownWrite,
    /// The guest will receive no more: `shutdown(Read)`.
    ShutdownRead,
    /// Close the stream after a [clean](crate::Ending::Clean) ending, else abort it.
    Close,
}

impl HostAction {
    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// What is to be done with the host's stream: an iterator over each [`HostAction`] of the set once,
/// in the order in which they are to be done. See
/// [`Connection::take_actions`](crate::Connection::take_actions).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct HostActions(u8);

impl HostActions {
    /// Nothing to do.
    pub(crate) const NONE: Self = Self(0);

    /// Adds one.
    pub(crate) const fn insert(&mut self, action: HostAction) {
        self.0 |= action.bit();
    }

    /// Whether this is to be done.
    #[must_use]
    pub const fn contains(self, action: HostAction) -> bool {
        self.0 & action.bit() != 0
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl Iterator for HostActions {
    type Item = HostAction;

    fn next(&mut self) -> Option<HostAction> {
        let action = match self.0.trailing_zeros() {
            0 => HostAction::Confirm,
            1 => HostAction::ShutdownWrite,
            2 => HostAction::ShutdownRead,
            3 => HostAction::Close,
            _ => return None,
        };
        self.0 &= !action.bit();
        Some(action)
    }
}

/// What the client of a host-initiated connection is told when the guest has accepted.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Confirmation {
    /// A line of text, `OK <host port>\n`, ahead of the guest's bytes. Its own bytes cost no
    /// credit.
    Line,
    /// Nothing in the stream: [`HostAction::Confirm`] says all.
    OutOfBand,
}

/// For which events the host's stream should be watched. An event that finds nothing to do is
/// harmless.
///
/// A hang-up matters in every case.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Interest {
    /// Until it is readable.
    pub read: bool,
    /// Until it is writable.
    pub write: bool,
}

impl Interest {
    /// Hang-ups alone.
    pub const NONE: Self = Self {
        read: false,
        write: false,
    };

    /// Until it is readable.
    pub const READ: Self = Self {
        read: true,
        write: false,
    };

    /// Until it is writable.
    pub const WRITE: Self = Self {
        read: false,
        write: true,
    };
}
