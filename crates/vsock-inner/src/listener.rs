// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Guest-initiated connections to a port of the host.

use std::fmt;
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, RawFd};

use thiserror::Error;

use crate::accept_queue::{AcceptQueue, Closed};
use crate::hub::Hub;
use crate::stream::VsockInnerStream;
use crate::sync::{Arc, AtomicBool, Ordering};

/// Accepts the connections that the guest opens to a port of the host.
///
/// It starts blocking. Dropping it frees the port and resets what waits.
///
/// ```
/// use std::io::{Read, Write};
/// use vsock_backend_api::VsockBackend;
/// use vsock_inner::VsockInnerBackend;
///
/// let backend = VsockInnerBackend::new()?;
/// let listener = backend.listen(1024)?;
///
/// // What a muxer does when the guest asks for port 1024:
/// let mut device = backend.connect(1024)?;
/// device.write_all(b"hello")?;
///
/// let mut stream = listener.accept()?;
/// let mut text = [0; 5];
/// stream.read_exact(&mut text)?;
/// assert_eq!(&text, b"hello");
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct VsockInnerListener {
    port: u32,
    nonblocking: AtomicBool,
    queue: Arc<AcceptQueue>,
    hub: Arc<Hub>,
}

/// Why nothing can be accepted any more.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum AcceptError {
    /// The backend has been dropped: `NotConnected`.
    #[error("accepting on port {port}: the backend has been dropped")]
    Dropped {
        /// The listener's port.
        port: u32,
    },
}

impl From<AcceptError> for io::Error {
    fn from(error: AcceptError) -> Self {
        Self::new(ErrorKind::NotConnected, error)
    }
}

impl VsockInnerListener {
    pub(crate) fn new(hub: &Arc<Hub>, port: u32) -> io::Result<Self> {
        Ok(Self {
            port,
            nonblocking: AtomicBool::new(false),
            queue: hub.listen(port)?,
            hub: Arc::clone(hub),
        })
    }

    /// Takes the next connection, which is in blocking mode; waits for one if need be. A call that waits
    /// ends with a connection or with the backend's drop, and by nothing else: who must be able to stop
    /// polls the listener beside a descriptor of its own.
    ///
    /// # Errors
    ///
    /// - `WouldBlock`: none waits, in non-blocking mode.
    /// - `NotConnected`: the backend has been dropped.
    pub fn accept(&self) -> io::Result<VsockInnerStream> {
        // ORDER: Relaxed; partner: none, the flag guards nothing.
        let next = if self.nonblocking.load(Ordering::Relaxed) {
            self.queue.try_pop()
        } else {
            self.queue.pop().map(Some)
        };
        match next {
            Ok(Some(stream)) => Ok(stream),
            Ok(None) => Err(ErrorKind::WouldBlock.into()),
            Err(Closed) => Err(AcceptError::Dropped { port: self.port }.into()),
        }
    }

    /// Makes [`accept`](Self::accept) return `WouldBlock` (`true`) or wait (`false`). A call that
    /// waits already goes on waiting.
    ///
    /// # Errors
    ///
    /// None; the result is for the sake of sockets' users.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        // ORDER: Relaxed; partner: none, the flag guards nothing.
        self.nonblocking.store(nonblocking, Ordering::Relaxed);
        Ok(())
    }

    /// The port.
    #[must_use]
    pub const fn port(&self) -> u32 {
        self.port
    }
}

impl AsRawFd for VsockInnerListener {
    /// For polling only: readable while a connection waits, and after the backend's drop.
    fn as_raw_fd(&self) -> RawFd {
        self.queue.take_fd()
    }
}

impl fmt::Debug for VsockInnerListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VsockInnerListener")
            .field("port", &self.port)
            .field("waiting", &self.queue.len())
            .finish_non_exhaustive()
    }
}

impl Drop for VsockInnerListener {
    fn drop(&mut self) {
        self.hub.stop_listening(self.port);
        self.queue.close_fd();
    }
}
