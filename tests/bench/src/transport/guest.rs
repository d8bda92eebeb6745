// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io::{self, Read, Write};
use std::os::fd::RawFd;

use vm_memory::{Bytes, ReadVolatile, VolatileMemoryError, VolatileSlice, WriteVolatile};
use vsock_inner::{VsockInnerConfig, VsockInnerStream};

use crate::transport::{Pollable, Transport};
use crate::workload::stream::READ_SIZE;

/// A device that moves bytes between the stream and the memory of its guest.
pub(crate) struct Guest {
    pub(crate) config: VsockInnerConfig,
    /// Whether it copies through a buffer, as with a stream that does not support guest memory.
    pub(crate) bounce: bool,
}

/// The application end, which is a stream, or the device end.
pub(crate) struct GuestEnd {
    stream: VsockInnerStream,
    /// The guest's buffer for a packet; the application end has none.
    memory: Option<Vec<u8>>,
    /// The buffer to copy through.
    between: Vec<u8>,
    bounce: bool,
}

impl Transport for Guest {
    type End = GuestEnd;

    fn pair(&self) -> io::Result<(GuestEnd, GuestEnd)> {
        let (application, device) = VsockInnerStream::pair_with(&self.config)?;
        let end = |stream, memory| GuestEnd {
            stream,
            memory,
            between: vec![0; READ_SIZE],
            bounce: self.bounce,
        };
        Ok((
            end(application, None),
            end(device, Some(vec![0; READ_SIZE])),
        ))
    }
}

fn io_error(error: VolatileMemoryError) -> io::Error {
    match error {
        VolatileMemoryError::IOError(error) => error,
        error => io::Error::other(error),
    }
}

impl Read for GuestEnd {
    /// At the device end, reads into guest memory. `buf` is the buffer to copy through, or only
    /// gives the length.
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let Some(memory) = &mut self.memory else {
            return self.stream.read(buf);
        };
        let mut guest = VolatileSlice::from(&mut memory[..buf.len()]);
        if !self.bounce {
            return self.stream.read_volatile(&mut guest).map_err(io_error);
        }
        let got = self.stream.read(buf)?;
        guest.write_slice(&buf[..got], 0).map_err(io_error)?;
        Ok(got)
    }
}

impl Write for GuestEnd {
    /// At the device end, writes from guest memory. `buf` only gives the length.
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let Some(memory) = &mut self.memory else {
            return self.stream.write(buf);
        };
        let guest = VolatileSlice::from(&mut memory[..buf.len()]);
        if !self.bounce {
            return self.stream.write_volatile(&guest).map_err(io_error);
        }
        let between = &mut self.between[..buf.len()];
        guest.read_slice(between, 0).map_err(io_error)?;
        self.stream.write(between)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Pollable for GuestEnd {
    fn set_nonblocking(&mut self, nonblocking: bool) -> io::Result<()> {
        Pollable::set_nonblocking(&mut self.stream, nonblocking)
    }

    fn readable_fd(&self) -> RawFd {
        self.stream.readable_fd()
    }

    fn writable_fd(&self) -> io::Result<RawFd> {
        self.stream.writable_fd()
    }
}
