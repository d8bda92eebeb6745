// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use vsock_backend_api::VsockBackend;
use vsock_sockets::{
    ExposeBackend, PassFdBackend, SocketFileRemover, UnixBackend, UnixSeqpacketBackend,
};

/// A backend, and which of the guest's connections are for it.
pub(crate) struct Served {
    pub(crate) backend: Box<dyn VsockBackend>,
    pub(crate) serves: Serves,
}

/// Which of the guest's connections are for a backend.
pub(crate) enum Serves {
    /// Those to every port that no backend has for itself.
    Rest,
    /// Those to these ports.
    Ports(Vec<u32>),
    /// Those to other guests.
    Siblings,
}

impl Served {
    /// What can remove the file of a backend over Unix sockets.
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
