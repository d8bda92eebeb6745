// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A host stream whose calls change memory.

use std::any::Any;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, RawFd};

use vsock_backend_api::{VsockBackend, VsockBackendType, VsockStream};

use super::memory::Script;

const NAME: VsockBackendType = VsockBackendType::Other("meddler");

/// A stream that moves as many bytes as the script allows. It is also its own backend.
#[derive(Clone, Debug)]
pub(super) struct Meddler(pub(super) Script);

impl Read for Meddler {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.look();
        match self.0.read(buf.len()) {
            0 => Err(ErrorKind::WouldBlock.into()),
            read => {
                buf[..read].fill(0xa5);
                Ok(read)
            }
        }
    }
}

impl Write for Meddler {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.look();
        match self.0.write(buf.len()) {
            0 => Err(ErrorKind::WouldBlock.into()),
            written => Ok(written),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Only a name: there is no descriptor.
impl AsRawFd for Meddler {
    fn as_raw_fd(&self) -> RawFd {
        -1
    }
}

impl VsockStream for Meddler {
    fn backend_type(&self) -> VsockBackendType {
        NAME
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl VsockBackend for Meddler {
    fn accept(&mut self) -> io::Result<Box<dyn VsockStream>> {
        Err(ErrorKind::WouldBlock.into())
    }

    fn connect(&self, _dst_port: u32) -> io::Result<Box<dyn VsockStream>> {
        self.0.look();
        Ok(Box::new(self.clone()))
    }

    fn r#type(&self) -> VsockBackendType {
        NAME
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
