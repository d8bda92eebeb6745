// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A pair of Unix sockets, as a transport to compare with.

use std::any::Any;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use vsock_backend_api::{VsockBackendType, VsockStream};
use vsock_muxer_harness::source::{Mode, PairSource, Room, Stream};

/// A Unix socket, as it is.
#[derive(Debug)]
pub struct SocketStream(UnixStream);

impl Read for SocketStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.0.read_vectored(bufs)
    }
}

impl Write for SocketStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.write(buf)
    }
    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.write_vectored(bufs)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl AsRawFd for SocketStream {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl VsockStream for SocketStream {
    fn backend_type(&self) -> VsockBackendType {
        VsockBackendType::UnixStream
    }
    fn set_nonblocking(&mut self, nonblocking: bool) -> io::Result<()> {
        self.0.set_nonblocking(nonblocking)
    }
    fn set_read_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.0.set_read_timeout(timeout)
    }
    fn set_write_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.0.set_write_timeout(timeout)
    }
    fn shutdown(&mut self, how: Shutdown) -> io::Result<()> {
        self.0.shutdown(how)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Pairs of Unix sockets.
#[derive(Clone, Copy, Debug)]
pub struct Sockets;

impl PairSource for Sockets {
    fn pair(&self) -> io::Result<(Stream, Stream)> {
        let (application, device) = UnixStream::pair()?;
        Ok((
            Box::new(SocketStream(application)),
            Box::new(SocketStream(device)),
        ))
    }
    fn room(&self) -> (Room, Room) {
        (Room::Unknown, Room::Unknown)
    }
    fn modes(&self) -> (Mode, Mode) {
        (Mode::Blocking, Mode::Blocking)
    }
}
