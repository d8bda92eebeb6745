// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use vsock_backend_api::VsockBackend;
use vsock_sockets::{
    ExposeBackend, PassFdBackend, SocketFileRemover, UnixBackend, UnixSeqpacketBackend,
};

/// A backend, and which of the guest's connections it serves.
pub(crate) struct Served {
    pub(crate) backend: Box<dyn VsockBackend>,
    pub(crate) serves: Serves,
}

/// Which of the guest's connections a backend serves.
pub(crate) enum Serves {
    /// Connections to all ports that no backend has for itself.
    Rest,
    /// Connections to these ports.
    Ports(Vec<u32>),
    /// Connections to other guests.
    Siblings,
}

impl Served {
    /// Returns a handle that removes the socket file of a backend over Unix sockets.
    pub(crate) fn file_remover(&self) -> Option<SocketFileRemover> {
        let backend = self.backend.as_any();
        if let Some(streams) = backend.downcast_ref::<UnixBackend>() {
            Some(streams.file_remover())
        } else if let Some(messages) = backend.downcast_ref::<UnixSeqpacketBackend>() {
            Some(messages.file_remover())
        } else if let Some(passing) = backend.downcast_ref::<PassFdBackend>() {
            Some(passing.file_remover())
        } else {
            backend.downcast_ref::<ExposeBackend>()?.file_remover()
        }
    }
}
