// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::any::Any;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, RawFd};

use vm_memory::bitmap::BitmapSlice;
use vm_memory::{ReadVolatile, VolatileMemoryError, VolatileSlice, WriteVolatile};
use vsock_backend_api::{VsockBackendType, VsockStream, VsockVolatileStream};

/// A stream that moves one piece of guest memory at a call, and after its bytes tells once that it was reset,
/// as a socket does.
#[derive(Debug)]
pub struct Resetting(Vec<u8>, Option<ErrorKind>);

impl Resetting {
    /// One that has these bytes.
    #[must_use]
    pub fn after(bytes: &[u8]) -> Self {
        Self(bytes.to_vec(), Some(ErrorKind::ConnectionReset))
    }
}

impl Read for Resetting {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() {
            return self.1.take().map_or(Ok(0), |kind| Err(kind.into()));
        }
        let len = buf.len().min(self.0.len());
        buf[..len].copy_from_slice(&self.0[..len]);
        self.0.drain(..len);
        Ok(len)
    }
}

impl ReadVolatile for Resetting {
    fn read_volatile<B: BitmapSlice>(
        &mut self,
        buf: &mut VolatileSlice<'_, B>,
    ) -> Result<usize, VolatileMemoryError> {
        let mut bytes = vec![0; buf.len()];
        let len = self
            .read(&mut bytes)
            .map_err(VolatileMemoryError::IOError)?;
        buf.copy_from(&bytes[..len]);
        Ok(len)
    }
}

impl Write for Resetting {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(ErrorKind::ConnectionReset.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl WriteVolatile for Resetting {
    fn write_volatile<B: BitmapSlice>(
        &mut self,
        _: &VolatileSlice<'_, B>,
    ) -> Result<usize, VolatileMemoryError> {
        let refused = ErrorKind::ConnectionReset.into();
        Err(VolatileMemoryError::IOError(refused))
    }
}

impl AsRawFd for Resetting {
    fn as_raw_fd(&self) -> RawFd {
        -1
    }
}

impl VsockStream for Resetting {
    fn backend_type(&self) -> VsockBackendType {
        VsockBackendType::Other("resetting")
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> Option<&mut dyn Any> {
        Some(self)
    }
}

impl VsockVolatileStream for Resetting {}
