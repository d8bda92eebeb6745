// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;

use crate::VsockStream;

/// Where a host component gets connections from: those that a guest opens to a port, or that other
/// programs open to a socket. The listening sockets of `std` are such listeners, too.
///
/// `as_raw_fd` is for polling only: it is readable while a connection waits.
///
/// ```
/// use std::io;
/// use vsock_backend_api::{VsockListener, VsockStream};
///
/// /// Takes what waits, without waiting for more.
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
    /// Takes the next connection, whose stream is in blocking mode; waits for one in blocking mode.
    ///
    /// # Errors
    ///
    /// - `WouldBlock`: none waits, in non-blocking mode.
    /// - `NotConnected`: no connection will ever come.
    /// - Anything else concerns this one connection, or says that the process lacks a resource such
    ///   as descriptors; a later call may succeed.
    fn accept(&self) -> io::Result<Box<dyn VsockStream>>;

    /// Makes [`accept`](Self::accept) return `WouldBlock` (`true`) or wait (`false`).
    ///
    /// # Errors
    ///
    /// Those of the operating system.
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
