// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A stream during whose reads something happens.

use std::any::Any;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vsock_backend_api::{VsockBackend, VsockBackendType, VsockStream};

type Interrupt = Box<dyn FnOnce() + Send>;

/// A host that takes everything, and sends a byte when there is something to be done while it is read. It is
/// its own backend, and a clone is the same.
#[derive(Clone, Default)]
pub struct Interrupting(Arc<Mutex<Option<Interrupt>>>);

impl Interrupting {
    /// The next read does this, and gets a byte.
    pub fn interrupt(&self, interrupt: impl FnOnce() + Send + 'static) {
        *self.next() = Some(Box::new(interrupt));
    }

    fn next(&self) -> MutexGuard<'_, Option<Interrupt>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Interrupting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interrupting").finish_non_exhaustive()
    }
}

impl Read for Interrupting {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let interrupt = self.next().take();
        interrupt.ok_or(ErrorKind::WouldBlock)?();
        b"!".as_slice().read(buf)
    }
}

impl Write for Interrupting {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A name, not a descriptor.
impl AsRawFd for Interrupting {
    fn as_raw_fd(&self) -> RawFd {
        -1
    }
}

impl VsockStream for Interrupting {
    fn backend_type(&self) -> VsockBackendType {
        VsockBackendType::Other("interrupting")
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl VsockBackend for Interrupting {
    fn accept(&mut self) -> io::Result<Box<dyn VsockStream>> {
        Err(ErrorKind::WouldBlock.into())
    }

    fn connect(&self, _dst_port: u32) -> io::Result<Box<dyn VsockStream>> {
        Ok(Box::new(self.clone()))
    }

    fn r#type(&self) -> VsockBackendType {
        VsockBackendType::Other("interrupting")
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
