// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a service can learn about the connection of a request.

use vsock_inner::VsockAddr;

use crate::stream::AsyncStream;

/// The two addresses of a connection. axum provides them through its `ConnectInfo`, tonic in the
/// extensions of a request.
///
/// An address is `None` if the device did not report it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct VsockConnectInfo {
    pub(crate) peer: Option<VsockAddr>,
    pub(crate) local: Option<VsockAddr>,
}

impl VsockConnectInfo {
    /// The addresses of this connection.
    pub(crate) fn of(stream: &AsyncStream) -> Self {
        let ends = stream.ends();
        Self {
            peer: ends.peer,
            local: ends.local,
        }
    }

    /// Returns the address of the guest's end.
    #[must_use]
    pub const fn peer_addr(&self) -> Option<VsockAddr> {
        self.peer
    }

    /// Returns the address of the host's end.
    #[must_use]
    pub const fn local_addr(&self) -> Option<VsockAddr> {
        self.local
    }
}
