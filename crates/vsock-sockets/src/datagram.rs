// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::any::Any;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use rustix::io::ioctl_fionbio;
use rustix::net::SocketType;
use rustix::net::sockopt::Timeout;
use vsock_backend_api::{Received, Record, VsockBackendType, VsockMessages, VsockStream};

use crate::unix::guarded_socket::GuardedSocket;
use crate::unix::seqpacket_stream::send_whole;
use crate::unix::socket_stream::{as_fd_of, socket_methods};

/// The device end of a connection that sends the guest's messages to a Unix datagram socket
/// (`SOCK_DGRAM`), such as systemd's `$NOTIFY_SOCKET`.
///
/// The receiver cannot answer. Once the guest has stopped sending and all its messages are in the
/// receiver's queue, the guest reads the end of the connection. A guest that waits for the end, as
/// systemd does, therefore knows that its messages were delivered. If the receiver's queue is full,
/// the guest waits; if the receiver has gone, the connection breaks.
///
/// A message can have at most about twice `net.core.wmem_max` bytes, as with
/// [`UnixSeqpacketStream`](crate::UnixSeqpacketStream). A longer message ends the connection.
#[derive(Debug)]
pub struct DatagramStream {
    socket: GuardedSocket,
    /// Whether the device has stopped sending.
    ended: bool,
}

impl DatagramStream {
    /// Connects to the socket at `path`. The stream is in non-blocking mode.
    ///
    /// # Errors
    ///
    /// - `NotFound`, `ConnectionRefused`: there is no receiver at `path`.
    /// - `EPROTOTYPE`: the socket is of another type.
    /// - Any other error comes from the operating system.
    ///
    /// ```
    /// use std::io::Write;
    /// use std::os::unix::net::UnixDatagram;
    /// use vsock_sockets::DatagramStream;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// # let directory = std::env::temp_dir().join(format!("vsock-dgram-{}", std::process::id()));
    /// # std::fs::create_dir_all(&directory)?;
    /// let path = directory.join("notify");
    /// let receiver = UnixDatagram::bind(&path)?;
    /// DatagramStream::connect(&path)?.write_all(b"READY=1\n")?;
    /// let mut buffer = [0; 100];
    /// assert_eq!(receiver.recv(&mut buffer)?, 8);
    /// # std::fs::remove_dir_all(&directory)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn connect(path: impl AsRef<Path>) -> io::Result<Self> {
        let socket = GuardedSocket::dial(path.as_ref(), SocketType::DGRAM)?;
        let ended = false;
        Ok(Self { socket, ended })
    }
}

impl VsockMessages for DatagramStream {
    fn send_message(&mut self, message: &[IoSlice<'_>], _record: Record) -> io::Result<()> {
        if self.ended {
            return Err(ErrorKind::BrokenPipe.into());
        }
        send_whole(&self.socket, message)
    }

    /// # Errors
    ///
    /// `WouldBlock`, even in blocking mode, because nothing can arrive. After a
    /// [shutdown](VsockStream::shutdown) this returns the end instead.
    fn receive_message(&mut self, _buffer: &mut [u8]) -> io::Result<Received> {
        if self.ended {
            return Ok(Received::End);
        }
        Err(ErrorKind::WouldBlock.into())
    }
}

impl Read for DatagramStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.receive_message(buf).map(|_end| 0)
    }
}

/// Each write sends one datagram.
impl Write for DatagramStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.send_message(&[IoSlice::new(buf)], Record::Continues)?;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

as_fd_of!(DatagramStream, socket);

impl VsockStream for DatagramStream {
    /// Shutting down the writing half ends both directions: the descriptor becomes readable, and a
    /// read returns the end.
    fn shutdown(&mut self, how: Shutdown) -> io::Result<()> {
        if how != Shutdown::Read {
            self.ended = true;
            self.socket.shutdown(Shutdown::Both)?;
        }
        Ok(())
    }

    fn messages(&mut self) -> Option<&mut dyn VsockMessages> {
        Some(self)
    }

    socket_methods!(socket, VsockBackendType::UnixStream);
}

#[cfg(test)]
mod tests;
