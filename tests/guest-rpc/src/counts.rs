// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What both sides have seen.

use serde::{Deserialize, Serialize};

/// What a service has seen.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Counts {
    /// Connections that came.
    pub connected: u64,
    /// Connections that have gone.
    pub closed: u64,
    /// Calls that were begun.
    pub begun: u64,
    /// Calls that were served to their end, refused ones among them.
    pub finished: u64,
    /// Calls that the client gave up, or whose time was up.
    pub cancelled: u64,
}

impl Counts {
    /// Whether no call is being served.
    pub(crate) const fn is_served(&self) -> bool {
        self.begun == self.finished + self.cancelled
    }

    /// Whether no connection is open.
    pub(crate) const fn is_closed(&self) -> bool {
        self.connected == self.closed
    }
}

/// What a client has seen: nothing that should not be.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Seen {
    /// Calls that were answered, refused ones among them.
    pub answered: u64,
    /// Calls that were given up, by the client or at their deadline.
    pub cancelled: u64,
    /// Bytes of streams.
    pub bytes: u64,
    /// How long it took, in milliseconds.
    pub millis: u64,
}
