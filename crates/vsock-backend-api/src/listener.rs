// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;

use crate::VsockStream;

/// A source of connections for a host component: those that a guest opens to a port, or that other
/// processes open to a socket. Implemented for the listening sockets of `std`.
///
/// `as_raw_fd` is for polling only: it is readable while a connection waits.
///
/// ```
/// use std::io;
/// use vsock_backend_api::{VsockListener, VsockStream};
///
/// /// Accepts all waiting connections.
/// fn accept_all(listener: &impl VsockListener) -> io::Result<Vec<Box<dyn VsockStream>>> {
///     listener.set_nonblocking(true)?;
///     let mut streams = Vec::new();
///     loop {
///         match listener.accept() {
///             Ok(stream) => streams.push(stream),
///             Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(streams),
///             Err(error) => return Err(error),
///         }
///     }
/// }
///
/// let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
/// assert!(accept_all(&listener)?.is_empty());
/// # Ok::<(), io::Error>(())
/// ```
pub trait VsockListener: AsRawFd + Send {
    /// Takes the next connection. In blocking mode, waits for one. The stream is in blocking mode.
    ///
    /// # Errors
    ///
    /// - `WouldBlock`: no connection waits, in non-blocking mode.
    /// - `NotConnected`: no connection will ever arrive.
    /// - Any other error concerns this one connection, or means that the process lacks a resource
    ///   such as descriptors; a later call may succeed.
    fn accept(&self) -> io::Result<Box<dyn VsockStream>>;

    /// Makes [`accept`](Self::accept) return `WouldBlock` (`true`) or wait (`false`).
    ///
    /// # Errors
    ///
    /// Errors of the operating system.
    fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()>;
}

impl VsockListener for UnixListener {
    fn accept(&self) -> io::Result<Box<dyn VsockStream>> {
        let (stream, _) = self.accept()?;
        Ok(Box::new(stream))
    }

    fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.set_nonblocking(nonblocking)
    }
}

impl VsockListener for TcpListener {
    fn accept(&self) -> io::Result<Box<dyn VsockStream>> {
        let (stream, _) = self.accept()?;
        Ok(Box::new(stream))
    }

    fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.set_nonblocking(nonblocking)
    }
}
