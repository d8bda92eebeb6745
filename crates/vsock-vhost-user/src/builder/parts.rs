// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What is checked and found out before a device is made.

use vsock_backend_api::VsockBackend;
use vsock_sockets::{ExposeBackend, SocketFileRemover, UnixBackend, UnixSeqpacketBackend};

use crate::error::VhostUserError;

/// The longest queue that virtio knows (virtio 1.3, 2.7).
const MAX_QUEUE_SIZE: u16 = 1 << 15;

/// A size that a queue can have.
pub(super) fn checked_size(size: u16) -> Result<u16, VhostUserError> {
    if (2..=MAX_QUEUE_SIZE).contains(&size) && size.is_power_of_two() {
        Ok(size)
    } else {
        Err(VhostUserError::QueueSize(size))
    }
}

/// What can remove the file of a backend over Unix sockets.
pub(super) fn file_remover(backend: &dyn VsockBackend) -> Option<SocketFileRemover> {
    let backend = backend.as_any();
    if let Some(streams) = backend.downcast_ref::<UnixBackend>() {
        Some(streams.file_remover())
    } else if let Some(messages) = backend.downcast_ref::<UnixSeqpacketBackend>() {
        Some(messages.file_remover())
    } else {
        backend.downcast_ref::<ExposeBackend>()?.file_remover()
    }
}
