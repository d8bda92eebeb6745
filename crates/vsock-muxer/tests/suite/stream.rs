// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A host's stream whose peer is controlled by the test.

use std::any::Any;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard};

use vsock_backend_api::{
    Received, Record, VsockAddr, VsockBackendType, VsockMessages, VsockStream,
};

/// The result of a read after the last byte.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum After {
    #[default]
    WouldBlock,
    End,
    Failure(ErrorKind),
}

/// A message, and whether a record ends with it.
pub(crate) type Message = (Vec<u8>, bool);

#[derive(Debug, Default)]
pub(crate) struct State {
    /// The messages not yet read, and those that were written, on a stream of messages.
    pub(crate) messages: Option<(VecDeque<Message>, Vec<Message>)>,
    /// The longest message that it accepts; 0 means no limit.
    pub(crate) longest: usize,
    pub(crate) input: VecDeque<u8>,
    pub(crate) after: After,
    pub(crate) output: Vec<u8>,
    /// How many bytes writes still accept.
    pub(crate) space: usize,
    /// Space that the reader makes during a write that accepts only a part.
    pub(crate) space_after_short_write: usize,
    pub(crate) write_error: Option<ErrorKind>,
    pub(crate) interruptions: usize,
    pub(crate) reads: usize,
    pub(crate) writes: usize,
    pub(crate) shut_write: bool,
    pub(crate) shut_read: bool,
    /// Whether the stream exists or has existed.
    pub(crate) made: bool,
    pub(crate) closed: bool,
    /// Whether it was aborted.
    pub(crate) aborted: bool,
    pub(crate) peer_gone: bool,
    /// Whether it claims to be a channel inside the process.
    pub(crate) inner: bool,
    /// A separate descriptor for writing, if any.
    pub(crate) write_fd: Option<RawFd>,
    pub(crate) write_fd_failures: usize,
    /// The error of `finish_connect`; `None` if the stream is connected.
    pub(crate) unconnected: Option<ErrorKind>,
    pub(crate) requested: Option<u32>,
    pub(crate) peer: Option<VsockAddr>,
    pub(crate) peer_stopped_reading: bool,
    pub(crate) confirmed: Option<u32>,
    pub(crate) confirmed_from: Option<(VsockAddr, VsockAddr)>,
    pub(crate) confirm_error: Option<ErrorKind>,
}

impl State {
    /// Whether calls are interrupted.
    fn interrupt(&mut self) -> io::Result<()> {
        match self.interruptions.checked_sub(1) {
            None => Ok(()),
            Some(fewer) => {
                self.interruptions = fewer;
                Err(ErrorKind::Interrupted.into())
            }
        }
    }
}

/// The test's end of the stream.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    pub(crate) fd: RawFd,
    state: Arc<Mutex<State>>,
}

impl Host {
    pub(crate) fn new(fd: RawFd) -> Self {
        let state = State {
            space: usize::MAX,
            ..State::default()
        };
        Self {
            fd,
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// A host with a stream of messages.
    pub(crate) fn of_messages(fd: RawFd) -> Self {
        let host = Self::new(fd);
        host.state().messages = Some(Default::default());
        host
    }

    pub(crate) fn sends_message(&self, bytes: &[u8], record: bool) {
        let mut state = self.state();
        let messages = state.messages.as_mut().unwrap();
        messages.0.push_back((bytes.to_vec(), record));
    }

    pub(crate) fn got_messages(&self) -> Vec<Message> {
        std::mem::take(&mut self.state().messages.as_mut().unwrap().1)
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn sends(&self, bytes: &[u8]) {
        self.state().input.extend(bytes);
    }

    pub(crate) fn got(&self) -> Vec<u8> {
        std::mem::take(&mut self.state().output)
    }

    pub(crate) fn stream(&self) -> Box<dyn VsockStream> {
        self.state().made = true;
        Box::new(Stream(self.clone()))
    }
}

struct Stream(Host);

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.state().closed = true;
    }
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut state = self.0.state();
        assert!(!buf.is_empty(), "a read into nothing looks like an end");
        state.reads += 1;
        state.interrupt()?;
        if state.input.is_empty() {
            return match state.after {
                After::WouldBlock => Err(ErrorKind::WouldBlock.into()),
                After::End => Ok(0),
                After::Failure(kind) => Err(kind.into()),
            };
        }
        state.input.read(buf)
    }
}

impl Write for Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let mut state = self.0.state();
        state.interrupt()?;
        if let Some(kind) = state.write_error {
            return Err(kind.into());
        }
        let len = buf.len().min(state.space);
        if len == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        state.space -= len;
        state.writes += 1;
        if len < buf.len() {
            state.space += std::mem::take(&mut state.space_after_short_write);
        }
        state.output.extend(&buf[..len]);
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        self.0.fd
    }
}

impl VsockStream for Stream {
    fn backend_type(&self) -> VsockBackendType {
        if self.0.state().inner {
            VsockBackendType::Inner
        } else {
            VsockBackendType::Other("test")
        }
    }

    fn shutdown(&mut self, how: Shutdown) -> io::Result<()> {
        let mut state = self.0.state();
        state.shut_write |= how != Shutdown::Read;
        state.shut_read |= how != Shutdown::Write;
        Ok(())
    }

    fn write_ready_fd(&self) -> io::Result<RawFd> {
        let mut state = self.0.state();
        if state.write_fd_failures > 0 {
            state.write_fd_failures -= 1;
            return Err(io::Error::from_raw_os_error(24)); // EMFILE
        }
        Ok(state.write_fd.unwrap_or(self.0.fd))
    }

    fn finish_connect(&mut self) -> io::Result<()> {
        let mut state = self.0.state();
        state.interrupt()?;
        state.unconnected.map_or(Ok(()), |kind| Err(kind.into()))
    }

    fn peer(&self) -> Option<VsockAddr> {
        self.0.state().peer
    }

    fn peer_stopped_reading(&self) -> bool {
        self.0.state().peer_stopped_reading
    }

    fn requested_port(&mut self) -> Option<u32> {
        self.0.state().requested.take()
    }

    fn confirm(&mut self, host_port: u32) -> io::Result<()> {
        let mut state = self.0.state();
        match state.confirm_error {
            Some(kind) => Err(kind.into()),
            None => {
                state.confirmed = Some(host_port);
                Ok(())
            }
        }
    }

    fn abort(self: Box<Self>) {
        self.0.state().aborted = true;
    }

    fn confirm_from(&mut self, guest: VsockAddr, host: VsockAddr) -> io::Result<()> {
        self.0.state().confirmed_from = Some((guest, host));
        self.confirm(host.port)
    }

    fn peer_gone(&self) -> bool {
        self.0.state().peer_gone
    }

    fn messages(&mut self) -> Option<&mut dyn VsockMessages> {
        let keeps = self.0.state().messages.is_some();
        keeps.then_some(self)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl VsockMessages for Stream {
    fn send_message(&mut self, message: &[IoSlice<'_>], record: Record) -> io::Result<()> {
        let mut state = self.0.state();
        state.interrupt()?;
        if let Some(kind) = state.write_error {
            return Err(kind.into());
        }
        let bytes: Vec<u8> = message.iter().flat_map(|piece| piece.to_vec()).collect();
        if state.longest > 0 && bytes.len() > state.longest {
            return Err(ErrorKind::InvalidInput.into());
        }
        if bytes.len() > state.space {
            return Err(ErrorKind::WouldBlock.into());
        }
        state.space -= bytes.len();
        let messages = state.messages.as_mut().unwrap();
        messages.1.push((bytes, record == Record::Ends));
        Ok(())
    }

    fn receive_message(&mut self, buffer: &mut [u8]) -> io::Result<Received> {
        let mut state = self.0.state();
        state.reads += 1;
        state.interrupt()?;
        let Some((bytes, end_of_record)) = state.messages.as_mut().unwrap().0.pop_front() else {
            return match state.after {
                After::WouldBlock => Err(ErrorKind::WouldBlock.into()),
                After::End => Ok(Received::End),
                After::Failure(kind) => Err(kind.into()),
            };
        };
        let len = bytes.len();
        let Some(dst) = buffer.get_mut(..len) else {
            return Ok(Received::TooLong);
        };
        dst.copy_from_slice(&bytes);
        let record = if end_of_record {
            Record::Ends
        } else {
            Record::Continues
        };
        Ok(Received::Message { len, record })
    }
}
