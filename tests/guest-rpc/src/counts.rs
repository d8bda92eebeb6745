// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the service and the client have counted.

use serde::{Deserialize, Serialize};

/// What a service has counted.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Counts {
    /// Connections that were accepted.
    pub connected: u64,
    /// Connections that have ended.
    pub closed: u64,
    /// Calls that have begun.
    pub begun: u64,
    /// Calls that were completed, including refused ones.
    pub finished: u64,
    /// Calls that the client cancelled, or whose deadline passed.
    pub cancelled: u64,
}

impl Counts {
    /// Returns whether no call is in progress.
    pub(crate) const fn is_served(&self) -> bool {
        self.begun == self.finished + self.cancelled
    }

    /// Returns whether no connection is open.
    pub(crate) const fn is_closed(&self) -> bool {
        self.connected == self.closed
    }
}

/// What a client has counted. Anything unexpected would have been an error.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Seen {
    /// Calls that were answered, including refused ones.
    pub answered: u64,
    /// Calls that were cancelled, by the client or at their deadline.
    pub cancelled: u64,
    /// Bytes received in streams.
    pub bytes: u64,
    /// The duration in milliseconds.
    pub millis: u64,
}
