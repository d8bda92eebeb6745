// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a service is told of the connection that a request came by.

use vsock_inner::VsockAddr;

use crate::stream::AsyncStream;

/// Who is connected to whom: with axum by its `ConnectInfo`, with tonic among the extensions of a
/// request.
///
/// The addresses are `None` where the device has not told them.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct VsockConnectInfo {
    pub(crate) peer: Option<VsockAddr>,
    pub(crate) local: Option<VsockAddr>,
}

impl VsockConnectInfo {
    /// That of a connection.
    pub(crate) fn of(stream: &AsyncStream) -> Self {
        let ends = stream.ends();
        Self {
            peer: ends.peer,
            local: ends.local,
        }
    }

    /// The address of the guest's end.
    #[must_use]
    pub const fn peer_addr(&self) -> Option<VsockAddr> {
        self.peer
    }

    /// The address of the host's end.
    #[must_use]
    pub const fn local_addr(&self) -> Option<VsockAddr> {
        self.local
    }
}
