// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The source of a device's VMMs.

use std::io;
use std::os::unix::net::UnixStream;

use vsock_sockets::ListenerHandle;

/// The VMMs of a device, one after another.
pub(crate) enum Vmms {
    /// All VMMs that connect, until the device is stopped.
    Listening(ListenerHandle),
    /// One connected VMM, until it has been served.
    Connected(Option<UnixStream>),
}

impl Vmms {
    /// Waits for the next VMM. Returns `None` if there will be no other.
    pub(crate) fn next(&mut self) -> io::Result<Option<UnixStream>> {
        match self {
            Self::Listening(listener) => listener.accept().map(Some),
            Self::Connected(vmm) => Ok(vmm.take()),
        }
    }
}
