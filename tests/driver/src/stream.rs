// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::any::Any;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, RawFd};

use vsock_backend_api::{VsockBackendType, VsockStream};

/// A stream that has bytes to read, takes so many at a call, and counts its calls.
#[derive(Debug, Default)]
pub struct Counted {
    /// Bytes to read; none is "not now".
    pub source: VecDeque<u8>,
    /// Bytes that were written.
    pub sink: Vec<u8>,
    /// Bytes that the next writes take; then, or with 0, they block.
    pub takes: VecDeque<usize>,
    /// Lengths of the buffers that were read into.
    pub reads: Vec<usize>,
    /// Lengths of the buffers that were offered.
    pub writes: Vec<usize>,
    /// Whether the next read is interrupted.
    pub interrupted: bool,
}

impl Read for Counted {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        assert!(!buf.is_empty(), "an empty read looks like an end");
        if std::mem::take(&mut self.interrupted) {
            return Err(ErrorKind::Interrupted.into());
        }
        self.reads.push(buf.len());
        match self.source.read(buf) {
            Ok(0) => Err(ErrorKind::WouldBlock.into()),
            read => read,
        }
    }
}

impl Write for Counted {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.writes.push(buf.len());
        match self.takes.pop_front().unwrap_or(0).min(buf.len()) {
            0 => Err(ErrorKind::WouldBlock.into()),
            taken => {
                self.sink.extend_from_slice(&buf[..taken]);
                Ok(taken)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsRawFd for Counted {
    fn as_raw_fd(&self) -> RawFd {
        -1
    }
}

impl VsockStream for Counted {
    fn backend_type(&self) -> VsockBackendType {
        VsockBackendType::Other("counted")
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
