// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The host's side of a connection: actions on the host's stream, and events to watch for.

/// An action on the host's stream. Smaller values must be executed first.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub enum HostAction {
    /// Confirm to the client of a host-initiated connection that the guest has accepted. If the
    /// client expects a line of text, that line is already at the front of the backlog.
    Confirm,
    /// Call `shutdown(Write)`: the guest will send no more, and everything it sent has been
    /// written.
    ShutdownWrite,
    /// Call `shutdown(Read)`: the guest will receive no more.
    ShutdownRead,
    /// Close the stream if the connection [ended cleanly](crate::Ending::Clean); abort it
    /// otherwise.
    Close,
}

impl HostAction {
    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A set of actions on the host's stream: an iterator that yields each [`HostAction`] once, in the
/// order of execution. See [`Connection::take_actions`](crate::Connection::take_actions).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct HostActions(u8);

impl HostActions {
    /// The empty set.
    pub(crate) const NONE: Self = Self(0);

    /// Adds an action.
    pub(crate) const fn insert(&mut self, action: HostAction) {
        self.0 |= action.bit();
    }

    /// Returns whether the set contains `action`.
    #[must_use]
    pub const fn contains(self, action: HostAction) -> bool {
        self.0 & action.bit() != 0
    }

    /// Returns whether the set is empty.
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

/// How the client of a host-initiated connection learns that the guest has accepted.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Confirmation {
    /// By a line of text, `OK <host port>\n`, ahead of the guest's bytes. The line costs no credit.
    Line,
    /// By [`HostAction::Confirm`] alone, with nothing in the stream.
    OutOfBand,
}

/// The events for which the host's stream should be watched. A spurious event is harmless.
///
/// Hang-ups must always be reported.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Interest {
    /// Whether to report that the stream is readable.
    pub read: bool,
    /// Whether to report that the stream is writable.
    pub write: bool,
}

impl Interest {
    /// Reports hang-ups only.
    pub const NONE: Self = Self {
        read: false,
        write: false,
    };

    /// Reports that the stream is readable.
    pub const READ: Self = Self {
        read: true,
        write: false,
    };

    /// Reports that the stream is writable.
    pub const WRITE: Self = Self {
        read: false,
        write: true,
    };
}
