// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Streams for tests: one that counts its calls, and one end of a pair inside the process.

use std::any::Any;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, RawFd};

use vsock_backend_api::{VsockBackendType, VsockStream};
use vsock_inner::{Capacity, VsockInnerConfig, VsockInnerStream};

/// A stream that has bytes to read, takes so many at a call, and counts its calls.
#[derive(Debug, Default)]
pub(super) struct Counted {
    pub(super) source: VecDeque<u8>,
    pub(super) sink: Vec<u8>,
    /// Bytes that the next writes take; then, or with 0, they block.
    pub(super) takes: VecDeque<usize>,
    pub(super) reads: Vec<usize>,
    pub(super) writes: Vec<usize>,
    pub(super) interrupted: bool,
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
        unimplemented!("nobody polls it")
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

/// The device's end and the application's, both non-blocking, with space for so many bytes.
pub(super) fn pair(capacity: usize) -> (VsockInnerStream, VsockInnerStream) {
    let config = VsockInnerConfig::default()
        .to_device(Capacity::Bytes(capacity))
        .to_application(Capacity::Bytes(capacity));
    let (mut device, mut application) = VsockInnerStream::pair_with(&config).unwrap();
    device.set_nonblocking(true).unwrap();
    application.set_nonblocking(true).unwrap();
    (device, application)
}

/// Bytes that tell their position.
pub(super) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect()
}
