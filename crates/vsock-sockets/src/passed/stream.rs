// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::any::Any;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::net::{SendFlags, send};
use vsock_backend_api::{VsockBackendType, VsockStream};

use super::register::StreamEntry;
use crate::unix::guarded_socket::GuardedSocket;
use crate::unix::socket_stream::as_fd_of;
use crate::unix::stream::UnixVsockStream;

/// The device end of a connection over a passed descriptor, created by a
/// [`PassFdBackend`](crate::PassFdBackend).
///
/// A separate thread moves the bytes, because the process that passed the descriptor still shares
/// it. A successful write has therefore not necessarily reached the descriptor. Bytes written
/// before a drop are still delivered; an [abort](VsockStream::abort) discards them.
///
/// ```
/// use std::io::{IoSlice, Read, Write, pipe};
/// use std::mem::MaybeUninit;
/// use std::os::fd::AsFd;
/// use std::os::unix::net::UnixStream;
/// use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
/// use vsock_sockets::{PassFdBackend, PassFdConfig, VsockBackend};
///
/// # fn main() -> std::io::Result<()> {
/// # let directory = std::env::temp_dir().join(format!("vsock-passfd-{}", std::process::id()));
/// # std::fs::create_dir_all(&directory)?;
/// let path = directory.join("vm.vsock");
/// let mut backend = PassFdBackend::bind(&path, PassFdConfig::default())?;
///
/// let (mut output, writer) = pipe()?;
/// let mut client = UnixStream::connect(&path)?;
/// client.write_all(b"passfd\n")?;
/// let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
/// let mut control = SendAncillaryBuffer::new(&mut space);
/// let descriptors = [writer.as_fd()];
/// control.push(SendAncillaryMessage::ScmRights(&descriptors));
/// sendmsg(&client, &[IoSlice::new(b"1024\n")], &mut control, SendFlags::empty())?;
///
/// // A device would wait for the backend's descriptor. Once the guest has accepted, it confirms.
/// let mut device = loop {
///     match backend.accept() {
///         Ok(device) => break device,
///         Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
///         Err(error) => return Err(error),
///     }
/// };
/// assert_eq!(device.requested_port(), Some(1024));
/// device.confirm(1 << 30)?;
/// device.write_all(b"hello")?;
/// drop((device, writer));
///
/// let mut text = String::new();
/// output.read_to_string(&mut text)?;
/// assert_eq!(text, "hello");
/// # drop(backend);
/// # std::fs::remove_dir_all(&directory)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct PassedStream {
    bytes: UnixVsockStream,
    port: u32,
    /// The client's socket, until the client has been told of the guest's answer.
    client: Option<GuardedSocket>,
    /// The entry in the register. When the bytes end, the pump looks here for the reason.
    entry: StreamEntry,
}

impl PassedStream {
    pub(super) const fn new(
        bytes: UnixVsockStream,
        port: u32,
        client: GuardedSocket,
        entry: StreamEntry,
    ) -> Self {
        Self {
            bytes,
            port,
            client: Some(client),
            entry,
        }
    }

    /// Turns the end into a reset if the descriptor has failed.
    fn checked(&self, read: io::Result<usize>) -> io::Result<usize> {
        if matches!(read, Ok(0)) && self.entry.is_broken() {
            return Err(ErrorKind::ConnectionReset.into());
        }
        read
    }
}

impl Read for PassedStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let read = self.bytes.read(buf);
        self.checked(read)
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        if bufs.iter().all(|buf| buf.is_empty()) {
            return Ok(0);
        }
        let read = self.bytes.read_vectored(bufs);
        self.checked(read)
    }
}

impl Write for PassedStream {
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

as_fd_of!(PassedStream, bytes);

impl VsockStream for PassedStream {
    fn requested_port(&mut self) -> Option<u32> {
        Some(self.port)
    }

    /// # Errors
    ///
    /// `BrokenPipe` if the client has left, and other errors of the operating system.
    fn confirm(&mut self, host_port: u32) -> io::Result<()> {
        let client = self.client.take().ok_or(ErrorKind::NotConnected)?;
        let line = format!("OK {host_port}\n");
        let sent = send(&client, line.as_bytes(), SendFlags::NOSIGNAL)?;
        if sent < line.len() {
            return Err(ErrorKind::WriteZero.into());
        }
        Ok(())
    }

    fn abort(self: Box<Self>) {
        self.entry.abort();
    }

    fn shutdown(&mut self, how: Shutdown) -> io::Result<()> {
        self.bytes.shutdown(how)
    }

    fn write_ready(&self) -> io::Result<BorrowedFd<'_>> {
        Ok(self.as_fd())
    }

    fn backend_type(&self) -> VsockBackendType {
        VsockBackendType::HybridStream
    }

    fn set_nonblocking(&mut self, nonblocking: bool) -> io::Result<()> {
        self.bytes.set_nonblocking(nonblocking)
    }

    fn set_read_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.bytes.set_read_timeout(timeout)
    }

    fn set_write_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.bytes.set_write_timeout(timeout)
    }

    /// Before the guest has answered, this is also true if the client has given up.
    fn peer_gone(&self) -> bool {
        self.client.as_ref().is_some_and(GuardedSocket::is_left) || self.bytes.peer_gone()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> Option<&mut dyn Any> {
        Some(self)
    }

    fn into_any(self: Box<Self>) -> Option<Box<dyn Any>> {
        Some(self)
    }
}
