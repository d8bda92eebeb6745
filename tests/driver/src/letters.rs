// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A seqpacket stream, and a backend that has one.

use std::any::Any;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vsock_backend_api::{
    Received, Record, VsockBackend, VsockBackendType, VsockMessages, VsockStream,
};

/// The messages that pass through the stream. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Letters(Arc<Mutex<Post>>);

/// The messages that were sent, and those that wait to be received.
#[derive(Debug, Default)]
pub struct Post {
    /// Messages that the device has sent, and whether each ends a record.
    pub sent: Vec<(Vec<u8>, bool)>,
    /// Messages that wait for the device.
    pub waiting: VecDeque<Vec<u8>>,
}

impl Letters {
    /// Locks the messages.
    pub fn post(&self) -> MutexGuard<'_, Post> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl VsockMessages for Letters {
    fn send_message(&mut self, message: &[IoSlice<'_>], record: Record) -> io::Result<()> {
        let message = message.iter().flat_map(|piece| piece.to_vec()).collect();
        self.post().sent.push((message, record == Record::Ends));
        Ok(())
    }

    fn receive_message(&mut self, buffer: &mut [u8]) -> io::Result<Received> {
        let next = self.post().waiting.pop_front();
        let message = next.ok_or(ErrorKind::WouldBlock)?;
        let len = message.len();
        let Some(place) = buffer.get_mut(..len) else {
            return Ok(Received::TooLong);
        };
        place.copy_from_slice(&message);
        Ok(Received::Message {
            len,
            record: Record::Continues,
        })
    }
}

impl Read for Letters {
    fn read(&mut self, _buf: &mut [u8]) -> io::Result<usize> {
        Err(ErrorKind::Unsupported.into())
    }
}

impl Write for Letters {
    fn write(&mut self, _buf: &[u8]) -> io::Result<usize> {
        Err(ErrorKind::Unsupported.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Only a name: there is no descriptor.
impl AsRawFd for Letters {
    fn as_raw_fd(&self) -> RawFd {
        -1
    }
}

impl VsockStream for Letters {
    fn backend_type(&self) -> VsockBackendType {
        VsockBackendType::Other("letters")
    }

    fn messages(&mut self) -> Option<&mut dyn VsockMessages> {
        Some(self)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Serves every port with the same stream.
impl VsockBackend for Letters {
    fn accept(&mut self) -> io::Result<Box<dyn VsockStream>> {
        Err(ErrorKind::WouldBlock.into())
    }

    fn connect(&self, _dst_port: u32) -> io::Result<Box<dyn VsockStream>> {
        Err(ErrorKind::ConnectionRefused.into())
    }

    fn has_seqpacket(&self) -> bool {
        true
    }

    fn connect_seqpacket(&self, _dst_port: u32) -> io::Result<Box<dyn VsockStream>> {
        Ok(Box::new(self.clone()))
    }

    fn r#type(&self) -> VsockBackendType {
        VsockBackendType::Other("letters")
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
