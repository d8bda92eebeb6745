// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The bytes of a stream: reading, writing, the backlog, and the shutdown after it.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};
use std::net::Shutdown;

use super::{Closure, Entry, Incoming, Outgoing, Then};
use crate::{StreamFailure, Trigger};

/// A backlog that has grown beyond this frees its memory when it is empty.
const KEPT: usize = 4096;

/// The result of a write.
pub(crate) struct Written {
    /// Bytes that the stream took.
    pub(crate) taken: usize,
    /// Bytes that were added to the backlog.
    pub(crate) kept: usize,
}

impl<T> Entry<T> {
    /// Reads once. Returns `Ok(None)` if nothing is available.
    pub(crate) fn read(&mut self, buf: &mut [u8], trigger: Trigger) -> io::Result<Option<usize>> {
        let most = buf.len();
        loop {
            match self.stream.read(buf) {
                Ok(read) => {
                    // A short read means that nothing more is available. If that is wrong, a
                    // level-triggered poll reports it again. With edges, only `WouldBlock` is
                    // proof.
                    self.turn.dry = read < most && trigger == Trigger::Level;
                    self.turn.budget = self.turn.budget.saturating_sub(read);
                    self.turn.moved = true;
                    if read == 0 {
                        self.incoming = Incoming::Ending;
                    }
                    return Ok(Some(read));
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.turn.dry = true;
                    return Ok(None);
                }
                Err(error) => {
                    self.turn.moved = true;
                    return Err(error);
                }
            }
        }
    }

    /// Writes as much of `bytes` as the stream takes, and adds as much of the rest to the backlog
    /// as fits.
    pub(crate) fn write(&mut self, bytes: &[u8], limit: usize) -> io::Result<Written> {
        let mut taken = 0;
        while !self.writing() && taken < bytes.len() {
            match self.stream.write(&bytes[taken..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => taken += written,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        let rest = &bytes[taken..];
        let kept = rest.len().min(limit.saturating_sub(self.backlog.len()));
        self.backlog.extend(&rest[..kept]);
        if kept < rest.len() {
            self.await_space();
        }
        Ok(Written { taken, kept })
    }

    /// Writes the backlog as far as the stream takes it. Returns the number of bytes written.
    pub(crate) fn flush(&mut self) -> (usize, io::Result<()>) {
        let mut taken = 0;
        while self.writing() {
            let (first, second) = self.backlog.as_slices();
            let slices = [IoSlice::new(first), IoSlice::new(second)];
            match self.stream.write_vectored(&slices) {
                Ok(0) => return (taken, Err(ErrorKind::WriteZero.into())),
                Ok(written) => {
                    drop(self.backlog.drain(..written));
                    taken += written;
                    self.turn.moved = true;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return (taken, Err(error)),
            }
        }
        if !self.writing() && self.backlog.capacity() > KEPT {
            self.backlog = VecDeque::new();
        }
        self.shut_down();
        (taken, Ok(()))
    }

    /// Ends the outgoing direction once everything is written.
    pub(crate) fn finish(&mut self, then: Then) {
        match &mut self.outgoing {
            Outgoing::Open(_) => self.outgoing = Outgoing::Closed(Closure::Pending, then),
            Outgoing::Closed(_, before) => *before = then.max(*before),
        }
        self.shut_down();
    }

    /// Shuts the outgoing direction down if that is pending and everything is written.
    fn shut_down(&mut self) {
        let Outgoing::Closed(closure @ Closure::Pending, then) = &mut self.outgoing else {
            return;
        };
        if !self.backlog.is_empty() {
            return;
        }
        *closure = Closure::Shut;
        // Without half-close, only closing the whole stream ends it. Any other error means that the
        // peer has gone, which reading will report.
        match self.stream.shutdown(Shutdown::Write) {
            Err(error) if error.kind() == ErrorKind::Unsupported => *then = Then::Close,
            _ => {}
        }
    }

    /// Records that writing has failed. Returns the number of bytes that are lost.
    pub(crate) fn broken(&mut self, failure: StreamFailure) -> usize {
        let lost = self.backlog.len();
        self.backlog = VecDeque::new();
        let then = match self.outgoing {
            Outgoing::Open(_) => Then::ReadOn,
            Outgoing::Closed(_, then) => then,
        };
        self.outgoing = Outgoing::Closed(Closure::Broken, then);
        self.turn.moved = true;
        self.failure.get_or_insert(failure);
        lost
    }
}
