// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Where the VMMs of a device come from.

use std::io;
use std::os::unix::net::UnixStream;

use vsock_sockets::ListenerHandle;

/// The VMMs of a device, one after the other.
pub(crate) enum Vmms {
    /// Those that connect, until the device is stopped.
    Listening(ListenerHandle),
    /// The one that is connected, if it has not been served.
    Connected(Option<UnixStream>),
}

impl Vmms {
    /// Waits for the next one; `None`: there is no other.
    pub(crate) fn next(&mut self) -> io::Result<Option<UnixStream>> {
        match self {
            Self::Listening(listener) => listener.accept().map(Some),
            Self::Connected(vmm) => Ok(vmm.take()),
        }
    }
}
