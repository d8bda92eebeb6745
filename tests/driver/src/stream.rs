// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::any::Any;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, RawFd};

use vm_memory::bitmap::BitmapSlice;
use vm_memory::{ReadVolatile, VolatileMemoryError, VolatileSlice, WriteVolatile};
use vsock_backend_api::{VsockBackendType, VsockStream, VsockVolatileStream};

/// A stream with bytes to read, which accepts a set number of bytes and records its calls. It moves
/// one piece of guest memory for each call.
#[derive(Debug, Default)]
pub struct Counted {
    /// Bytes to read.
    pub source: VecDeque<u8>,
    /// What follows these bytes.
    pub after: AfterBytes,
    /// Bytes that were written.
    pub sink: Vec<u8>,
    /// How many bytes each of the next writes accepts. Without an entry, or with 0, a write would
    /// block.
    pub takes: VecDeque<usize>,
    /// The lengths of the buffers that were read into.
    pub reads: Vec<usize>,
    /// The lengths of the buffers that were offered for writing.
    pub writes: Vec<usize>,
    /// Whether the next read is interrupted.
    pub interrupted: bool,
}

/// What a stream reports after its last byte.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum AfterBytes {
    /// `WouldBlock`.
    #[default]
    Pause,
    /// A reset, once, and then the end, as a socket does. Writes fail as well.
    Reset,
    /// The end.
    End,
}

impl Counted {
    /// Creates a stream that has these bytes and is then reset.
    #[must_use]
    pub fn reset_after(bytes: &[u8]) -> Self {
        Self {
            source: bytes.to_vec().into(),
            after: AfterBytes::Reset,
            ..Self::default()
        }
    }
}

impl Read for Counted {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        assert!(!buf.is_empty(), "an empty read looks like an end");
        if std::mem::take(&mut self.interrupted) {
            return Err(ErrorKind::Interrupted.into());
        }
        self.reads.push(buf.len());
        match (self.source.read(buf)?, self.after) {
            (0, AfterBytes::Pause) => Err(ErrorKind::WouldBlock.into()),
            (0, AfterBytes::Reset) => {
                self.after = AfterBytes::End;
                Err(ErrorKind::ConnectionReset.into())
            }
            (read, _) => Ok(read),
        }
    }
}

impl Write for Counted {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.writes.push(buf.len());
        if self.after != AfterBytes::Pause {
            return Err(ErrorKind::ConnectionReset.into());
        }
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

/// Reads into a piece of guest memory through a buffer. A count that is too high moves nothing.
pub(crate) fn read_into<B: BitmapSlice>(
    stream: &mut impl Read,
    piece: &mut VolatileSlice<'_, B>,
) -> Result<usize, VolatileMemoryError> {
    let mut bytes = vec![0; piece.len()];
    let read = stream
        .read(&mut bytes)
        .map_err(VolatileMemoryError::IOError)?;
    piece.copy_from(bytes.get(..read).unwrap_or_default());
    Ok(read)
}

/// Writes a piece of guest memory through a buffer.
pub(crate) fn write_from<B: BitmapSlice>(
    stream: &mut impl Write,
    piece: &VolatileSlice<'_, B>,
) -> Result<usize, VolatileMemoryError> {
    let mut bytes = vec![0; piece.len()];
    piece.copy_to(&mut bytes[..]);
    stream.write(&bytes).map_err(VolatileMemoryError::IOError)
}

impl ReadVolatile for Counted {
    fn read_volatile<B: BitmapSlice>(
        &mut self,
        buf: &mut VolatileSlice<'_, B>,
    ) -> Result<usize, VolatileMemoryError> {
        read_into(self, buf)
    }
}

impl WriteVolatile for Counted {
    fn write_volatile<B: BitmapSlice>(
        &mut self,
        buf: &VolatileSlice<'_, B>,
    ) -> Result<usize, VolatileMemoryError> {
        write_from(self, buf)
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

    fn as_any_mut(&mut self) -> Option<&mut dyn Any> {
        Some(self)
    }
}

impl VsockVolatileStream for Counted {}
