// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Two halves used as one stream, so that every test of streams can test halves.

use std::any::Any;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use vsock_backend_api::{VsockBackendType, VsockStream};
use vsock_inner::{VsockInnerReader, VsockInnerStream, VsockInnerWriter};

/// A stream that was split into its halves.
#[derive(Debug)]
pub struct Halves {
    /// The reading half.
    pub reader: VsockInnerReader,
    /// The writing half.
    pub writer: VsockInnerWriter,
}

impl From<VsockInnerStream> for Halves {
    fn from(stream: VsockInnerStream) -> Self {
        let (reader, writer) = stream.into_split();
        Self { reader, writer }
    }
}

impl Read for Halves {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buf)
    }
    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.reader.read_vectored(bufs)
    }
}

impl Write for Halves {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.writer.write(buf)
    }
    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.writer.write_vectored(bufs)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

impl AsRawFd for Halves {
    fn as_raw_fd(&self) -> RawFd {
        self.reader.as_raw_fd()
    }
}

impl VsockStream for Halves {
    fn backend_type(&self) -> VsockBackendType {
        VsockBackendType::Inner
    }
    fn set_nonblocking(&mut self, nonblocking: bool) -> io::Result<()> {
        self.reader.set_nonblocking(nonblocking)?;
        self.writer.set_nonblocking(nonblocking)
    }
    fn set_read_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.reader.set_timeout(timeout)
    }
    fn set_write_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.writer.set_timeout(timeout)
    }
    fn shutdown(&mut self, how: Shutdown) -> io::Result<()> {
        if how != Shutdown::Write {
            self.reader.shutdown()?;
        }
        if how != Shutdown::Read {
            self.writer.shutdown()?;
        }
        Ok(())
    }
    fn write_ready_fd(&self) -> io::Result<RawFd> {
        self.writer.write_ready_fd()
    }
    fn peer_gone(&self) -> bool {
        self.reader.peer_gone() && self.writer.peer_gone()
    }
    fn abort(self: Box<Self>) {
        let Self { reader, writer } = *self;
        reader.abort();
        writer.abort();
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn as_any_mut(&mut self) -> Option<&mut dyn Any> {
        Some(self)
    }
}
