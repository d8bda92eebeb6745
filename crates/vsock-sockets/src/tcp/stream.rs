// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::any::Any;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::ioctl_fionbio;
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{getpeername, getsockname};
use vm_memory::bitmap::BitmapSlice;
use vm_memory::{ReadVolatile, VolatileMemoryError, VolatileSlice, WriteVolatile};
use vsock_backend_api::{VsockBackendType, VsockStream, VsockVolatileStream};

use crate::unix::guarded_socket::GuardedSocket;
use crate::unix::socket_stream::{as_fd_of, socket_methods};
use crate::unix::stream::UnixVsockStream;

/// The device end of a TCP connection.
///
/// It moves bytes like a [`UnixVsockStream`], and sends small amounts immediately (`TCP_NODELAY`).
/// An [abort](VsockStream::abort) is a reset (RST): bytes that the peer's system has not received
/// by then are lost, and the peer cannot mistake a broken connection for an orderly end. The
/// system's keepalive detects a peer whose machine has vanished, even on an idle connection
/// (`net.ipv4.tcp_keepalive_time`, two hours by default).
///
/// A stream that a backend has just opened may not be connected yet. Reads and writes fail with
/// `WouldBlock` until [`finish_connect`](VsockStream::finish_connect) succeeds.
///
/// ```
/// use std::io::{Read, Write};
/// use std::net::{TcpListener, TcpStream};
/// use vsock_sockets::{TcpVsockStream, VsockStream};
///
/// # fn main() -> std::io::Result<()> {
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let mut client = TcpStream::connect(listener.local_addr()?)?;
/// let mut device = TcpVsockStream::new(listener.accept()?.0);
/// device.finish_connect()?;
/// device.write_all(b"hello")?;
/// let mut text = [0; 5];
/// client.read_exact(&mut text)?;
/// assert_eq!(&text, b"hello");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct TcpVsockStream {
    bytes: UnixVsockStream,
    link: Link,
}

/// The state of the connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Link {
    Pending,
    Up,
}

impl TcpVsockStream {
    /// Creates a stream over a connected socket. The socket stays in its blocking or non-blocking
    /// mode.
    #[must_use]
    pub fn new(socket: TcpStream) -> Self {
        let socket = OwnedFd::from(socket);
        Self::accepted(GuardedSocket::without_files(socket))
    }

    pub(crate) fn accepted(socket: GuardedSocket) -> Self {
        Self::over(socket, Link::Up)
    }

    pub(crate) fn dialled(socket: GuardedSocket) -> Self {
        Self::over(socket, Link::Pending)
    }

    fn over(socket: GuardedSocket, link: Link) -> Self {
        // If this fails, small writes can be delayed.
        let _delayed = sockopt::set_tcp_nodelay(&socket, true);
        // If this fails, a vanished peer is only detected when something is sent to it.
        let _undetected = sockopt::set_socket_keepalive(&socket, true);
        let bytes = UnixVsockStream::over(socket);
        Self { bytes, link }
    }

    /// Sets the guest port of the stream, for a client that does not send one.
    pub(crate) fn wanting(mut self, port: u32) -> Self {
        self.bytes = self.bytes.wanting(port);
        self
    }

    /// Returns whether the socket is connected to itself. This happens if nothing listens on the
    /// target port and the kernel chooses the same port for this end (a simultaneous open).
    fn is_own_peer(&self) -> io::Result<bool> {
        let socket = &self.bytes.socket;
        Ok(getpeername(socket)? == Some(getsockname(socket)?))
    }
}

impl Read for TcpVsockStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.bytes.read(buf)
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.bytes.read_vectored(bufs)
    }
}

impl Write for TcpVsockStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.bytes.write(buf)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.bytes.write_vectored(bufs)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl ReadVolatile for TcpVsockStream {
    fn read_volatile<B: BitmapSlice>(
        &mut self,
        buf: &mut VolatileSlice<'_, B>,
    ) -> Result<usize, VolatileMemoryError> {
        self.bytes.read_volatile(buf)
    }
}

impl WriteVolatile for TcpVsockStream {
    fn write_volatile<B: BitmapSlice>(
        &mut self,
        buf: &VolatileSlice<'_, B>,
    ) -> Result<usize, VolatileMemoryError> {
        self.bytes.write_volatile(buf)
    }
}

impl VsockVolatileStream for TcpVsockStream {
    fn read_volatile_vectored<B: BitmapSlice>(
        &mut self,
        pieces: &[VolatileSlice<'_, B>],
    ) -> io::Result<usize> {
        self.bytes.read_volatile_vectored(pieces)
    }

    fn readable_bytes(&self) -> usize {
        self.bytes.readable_bytes()
    }

    fn write_volatile_vectored<B: BitmapSlice>(
        &mut self,
        pieces: &[VolatileSlice<'_, B>],
    ) -> io::Result<usize> {
        self.bytes.write_volatile_vectored(pieces)
    }
}

as_fd_of!(TcpVsockStream, bytes);

impl VsockStream for TcpVsockStream {
    /// # Errors
    ///
    /// - `WouldBlock`: the peer has not answered yet.
    /// - Any other error comes from the operating system, such as `ConnectionRefused`.
    fn finish_connect(&mut self) -> io::Result<()> {
        if self.link == Link::Up {
            return Ok(());
        }
        sockopt::socket_error(&self.bytes.socket)??;
        match self.is_own_peer() {
            Ok(false) => {
                self.link = Link::Up;
                Ok(())
            }
            Ok(true) => Err(ErrorKind::ConnectionRefused.into()),
            Err(error) if error.kind() == ErrorKind::NotConnected => {
                Err(ErrorKind::WouldBlock.into())
            }
            Err(error) => Err(error),
        }
    }

    fn requested_port(&mut self) -> Option<u32> {
        self.bytes.requested_port()
    }

    fn confirm(&mut self, host_port: u32) -> io::Result<()> {
        self.bytes.confirm(host_port)
    }

    fn abort(self: Box<Self>) {
        // With a linger time of zero, the close that follows is a reset. If this fails, the peer
        // reads an orderly end.
        let _end = sockopt::set_socket_linger(&self.bytes.socket, Some(Duration::ZERO));
    }

    /// Shutting down a direction that has already ended is not an error.
    fn shutdown(&mut self, how: Shutdown) -> io::Result<()> {
        match self.bytes.shutdown(how) {
            Err(error) if error.kind() == ErrorKind::NotConnected => Ok(()),
            result => result,
        }
    }

    socket_methods!(bytes.socket, VsockBackendType::Tcp);
}

#[cfg(test)]
mod tests;
