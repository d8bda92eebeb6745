// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A stream that passes every call on to a real one, except for what its fault changes.

use std::any::Any;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use vsock_backend_api::{Received, Record, VsockBackendType, VsockMessages, VsockStream};
use vsock_compliance::BoxedStream;
use vsock_compliance::fd::duplicate;
use vsock_compliance::poll::{Deadline, pace};

use super::{Fault, Mutants};

/// A stream with a fault.
pub(super) struct Mutant {
    /// `None` after a drop has leaked it.
    stream: Option<BoxedStream>,
    fault: Fault,
    nonblocking: bool,
    modes: usize,
    timeouts: [Option<Duration>; 2],
    shut_down: bool,
    refused: bool,
    /// A descriptor that is always readable, never readable, or open across an exec, as the fault
    /// needs.
    decoy: OwnedFd,
    peers_numbers: Vec<RawFd>,
}

impl Mutant {
    pub(super) fn new(
        stream: BoxedStream,
        fault: Fault,
        peers_numbers: Vec<RawFd>,
    ) -> io::Result<Self> {
        let (count, flags) = match fault {
            Fault::AlwaysReadable => (1, EventfdFlags::CLOEXEC),
            Fault::NotCloseOnExec => (0, EventfdFlags::empty()),
            _ => (0, EventfdFlags::CLOEXEC),
        };
        Ok(Self {
            stream: Some(stream),
            fault,
            nonblocking: false,
            modes: 0,
            timeouts: [None; 2],
            shut_down: false,
            refused: false,
            decoy: eventfd(count, flags)?,
            peers_numbers,
        })
    }

    pub(super) fn stream(&mut self) -> &mut BoxedStream {
        self.stream.as_mut().expect("the stream exists")
    }

    fn inner_messages(&mut self) -> io::Result<&mut dyn VsockMessages> {
        let messages = self.stream().messages();
        messages.ok_or_else(|| ErrorKind::Unsupported.into())
    }

    fn seen(&self) -> &BoxedStream {
        self.stream.as_ref().expect("the stream exists")
    }

    /// Keeps the first timeout if that is the fault.
    fn timeout(&mut self, at: usize, timeout: Option<Duration>) -> Option<Duration> {
        if self.fault == Fault::KeepsTimeouts && self.timeouts[at].is_some() {
            return self.timeouts[at];
        }
        self.timeouts[at] = timeout;
        timeout
    }

    fn outcome(&mut self, result: io::Result<usize>) -> io::Result<usize> {
        match result {
            Err(error) if error.kind() == ErrorKind::WouldBlock => match self.fault {
                Fault::TimesOutAlways => Err(ErrorKind::TimedOut.into()),
                _ => Err(error),
            },
            other => other,
        }
    }
}

/// Longer than it takes to see that a thread sleeps.
const MOMENT: Duration = Duration::from_millis(20);
/// Longer than the timeouts of the rules.
const AGES: Duration = Duration::from_millis(300);

impl Mutant {
    /// A blocking write that never sleeps.
    fn write_awake(&mut self, buf: &[u8]) -> io::Result<usize> {
        let deadline = Deadline::after(self.timeouts[1].unwrap_or(Duration::MAX));
        self.stream().set_nonblocking(true)?;
        let mut done = 0;
        let end = loop {
            match self.stream().write(&buf[done..]) {
                Ok(len) if done + len < buf.len() => done += len,
                Ok(len) => break Ok(done + len),
                Err(error) if error.kind() != ErrorKind::WouldBlock => break Err(error),
                Err(_) if deadline.passed() => break Err(ErrorKind::TimedOut.into()),
                Err(_) => thread::yield_now(),
            }
        };
        self.stream().set_nonblocking(false)?;
        // As a write that slept: if some bytes were accepted, their count hides the error.
        if done > 0 {
            Ok(end.unwrap_or(done))
        } else {
            end
        }
    }
}

impl Read for Mutant {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.fault == Fault::ReadsLate {
            pace(AGES)?;
        }
        if self.refused && self.fault == Fault::OneWay {
            return Err(ErrorKind::WouldBlock.into());
        }
        let most = match self.fault {
            Fault::ReadsByteByByte => buf.len().min(1),
            _ => buf.len(),
        };
        if self.fault == Fault::WaitsForAFullBuffer && !self.nonblocking {
            self.stream()
                .set_read_timeout(Some(Duration::from_secs(1)))?;
            return self.stream().read_exact(buf).map(|()| buf.len());
        }
        let read = self.stream().read(&mut buf[..most]);
        if let (Ok(1..), Fault::Corrupts) = (&read, self.fault) {
            buf[0] ^= 1;
        }
        if let (Ok(1..), Fault::DropsTheRest) = (&read, self.fault) {
            while let Ok(1..) = self.stream().read(&mut [0; 64]) {}
        }
        self.outcome(read)
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        match (self.fault, bufs.last_mut()) {
            (Fault::SwapsBuffers, Some(last)) => self.stream().read(last),
            _ => self.stream().read_vectored(bufs),
        }
    }
}

impl Write for Mutant {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let blocking = !self.nonblocking;
        if blocking && self.fault == Fault::WritesLate {
            pace(MOMENT)?;
        }
        let written = match self.fault {
            Fault::WritesAwake if blocking => return self.write_awake(buf),
            Fault::EmptyWriteSends if buf.is_empty() => self.stream().write(b"x").map(|_| 0),
            Fault::WritesHalf if blocking && buf.len() > 1 => {
                let half = buf.len() / 2;
                self.stream().write(&buf[..half])
            }
            Fault::NeverBlocks if blocking => {
                self.stream().set_nonblocking(true)?;
                let _some = self.stream().write(buf);
                self.stream().set_nonblocking(false)?;
                Ok(buf.len())
            }
            Fault::AllOrNothing if buf.len() > Mutants::CAPACITY => {
                Err(ErrorKind::WouldBlock.into())
            }
            _ => self.stream().write(buf),
        };
        match (&written, self.fault) {
            (Ok(len), Fault::LosesTheCount) if *len < buf.len() && blocking => {
                return Err(ErrorKind::TimedOut.into());
            }
            (Err(error), Fault::SignalsClosedNumbers) if error.kind() != ErrorKind::WouldBlock => {
                pace(Duration::from_millis(20))?; // until the numbers are in use again
                for number in &self.peers_numbers {
                    if let Ok(mut file) = duplicate(*number) {
                        let _rung = file.write(&1_u64.to_ne_bytes());
                    }
                }
            }
            (Err(_), _) => self.refused = true,
            _ => {}
        }
        self.outcome(written)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        match (self.fault, bufs.last()) {
            (Fault::SwapsBuffers, Some(last)) => self.stream().write(last),
            _ => self.stream().write_vectored(bufs),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsRawFd for Mutant {
    fn as_raw_fd(&self) -> RawFd {
        match self.fault {
            Fault::AlwaysReadable | Fault::NeverReadable | Fault::NotCloseOnExec => {
                self.decoy.as_raw_fd()
            }
            _ => self.seen().as_raw_fd(),
        }
    }
}

impl VsockStream for Mutant {
    fn backend_type(&self) -> VsockBackendType {
        self.seen().backend_type()
    }
    fn set_nonblocking(&mut self, nonblocking: bool) -> io::Result<()> {
        self.nonblocking = nonblocking;
        self.modes += 1;
        if self.fault == Fault::ModeIsAnEvent && self.modes > 1 {
            self.stream().write_all(b"x")?;
        }
        if self.fault == Fault::IgnoresModes {
            return Ok(());
        }
        self.stream().set_nonblocking(nonblocking)
    }
    fn set_read_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let timeout = self.timeout(0, timeout);
        self.stream().set_read_timeout(timeout)
    }
    fn set_write_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let timeout = self.timeout(1, timeout);
        self.stream().set_write_timeout(timeout)
    }
    fn shutdown(&mut self, how: Shutdown) -> io::Result<()> {
        let again = std::mem::replace(&mut self.shut_down, true) || self.peer_gone();
        match self.fault {
            Fault::IgnoresShutdown => Ok(()),
            Fault::ShutsDownOnce if again => Err(ErrorKind::NotConnected.into()),
            _ => self.stream().shutdown(how),
        }
    }
    fn write_ready_fd(&self) -> io::Result<RawFd> {
        match self.fault {
            Fault::AlwaysWritable => Ok(self.decoy.as_raw_fd()),
            _ => self.seen().write_ready_fd(),
        }
    }
    fn peer_gone(&self) -> bool {
        self.seen().peer_gone()
    }
    fn messages(&mut self) -> Option<&mut dyn VsockMessages> {
        self.stream().messages()?;
        Some(self)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn as_any_mut(&mut self) -> Option<&mut dyn Any> {
        Some(self)
    }
    fn abort(mut self: Box<Self>) {
        if let Some(stream) = self.stream.take() {
            stream.abort();
        }
    }
}

/// Streams that were leaked: they exist until the process ends.
static LEAKED: Mutex<Vec<BoxedStream>> = Mutex::new(Vec::new());

impl Drop for Mutant {
    fn drop(&mut self) {
        if self.fault == Fault::Leaks {
            let mut leaked = LEAKED.lock().unwrap_or_else(PoisonError::into_inner);
            leaked.extend(self.stream.take());
        }
    }
}

/// Faults that do not concern messages change nothing here.
impl VsockMessages for Mutant {
    fn send_message(&mut self, message: &[IoSlice<'_>], record: Record) -> io::Result<()> {
        let is_empty = message.iter().all(|piece| piece.is_empty());
        let sent = match self.fault {
            Fault::LosesEmpty if is_empty => Ok(()),
            _ => self.inner_messages()?.send_message(message, record),
        };
        match (self.fault, sent) {
            (Fault::SendsWhatHasNoRoom | Fault::SendsAfterItsEnd, Err(_)) => Ok(()),
            (_, sent) => sent,
        }
    }

    fn receive_message(&mut self, buffer: &mut [u8]) -> io::Result<Received> {
        let received = self.inner_messages()?.receive_message(buffer)?;
        Ok(match (self.fault, received) {
            (Fault::LosesAByte, Received::Message { len, record }) => {
                let len = len.saturating_sub(1);
                Received::Message { len, record }
            }
            (Fault::CutsOff, Received::TooLong) => Received::Message {
                len: buffer.len(),
                record: Record::Continues,
            },
            (_, received) => received,
        })
    }
}
