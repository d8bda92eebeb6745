// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The writing half of a stream.

use std::fmt;
use std::io::{self, ErrorKind, IoSlice, Write};
use std::iter::once;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::OnceLock;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use crate::answer::{Answer, Parsed};
use crate::connection::ConnectState;
use crate::error::StreamError;
use crate::half::{Half, Owner, first, rest, total};
use crate::pipe::{Producer, Progress};
use crate::ready_fd::ReadyFd;
use crate::spin::Pace;
use crate::sync::{Arc, EventFd};
use crate::wait::{Deadline, GaveUp};
use crate::word::{ENDED, FIN, READ_SHUT, READER_RESET, WRITER_RESET};

/// The writing half of a [`VsockInnerStream`](crate::VsockInnerStream).
///
/// It has its own mode and timeout. Dropping it closes only its direction, like
/// [`shutdown`](Self::shutdown): the peer reads what is queued, then the end. If its thread panics,
/// or after [`abort`](Self::abort), the peer gets `ConnectionReset` instead, unless the direction
/// was already shut down.
///
/// See [`VsockInnerReader`](crate::VsockInnerReader) for an example.
pub struct VsockInnerWriter {
    pub(crate) half: Half,
    producer: Producer,
    /// At a device end that must answer a request as text: the part of the answer written so far.
    answer: Option<Answer>,
    /// The descriptor for writing, once it was requested. Closed when this half is dropped.
    handle: OnceLock<Arc<EventFd>>,
}

/// The name of a write, for errors.
const WRITING: &str = "write to";
/// The name of a task's wait for its connection, for errors.
const CONNECTING: &str = "connect";

impl VsockInnerWriter {
    pub(crate) fn new(half: Half) -> Self {
        Self {
            producer: Producer::new(Arc::clone(half.outgoing())),
            half,
            answer: None,
            handle: OnceLock::new(),
        }
    }

    /// Returns the descriptor to poll for `EPOLLOUT`, and for nothing else. It is ready when a
    /// write would not return `WouldBlock`. The first call creates it; dropping the half closes it.
    ///
    /// # Errors
    ///
    /// Errors of `eventfd(2)`, including `EMFILE`. The half is then unchanged.
    pub fn write_ready_fd(&self) -> io::Result<RawFd> {
        Ok(self.take_fd()?.as_raw_fd())
    }

    /// Like [`write_ready_fd`](Self::write_ready_fd), borrowed from this half.
    ///
    /// # Errors
    ///
    /// As for [`write_ready_fd`](Self::write_ready_fd).
    pub fn write_ready(&self) -> io::Result<BorrowedFd<'_>> {
        Ok(self.take_fd()?.as_fd())
    }

    fn take_fd(&self) -> io::Result<&EventFd> {
        let handle = match self.handle.get() {
            Some(handle) => handle,
            None => {
                let made = Arc::new(EventFd::new()?);
                self.handle.get_or_init(|| made)
            }
        };
        let space = &self.half.outgoing().space;
        space.take_fd(self.producer.want(), || ReadyFd::writable(handle));
        Ok(handle)
    }

    /// Chooses what writes do if there is no space: return `WouldBlock` (`true`) or wait (`false`).
    ///
    /// # Errors
    ///
    /// Never fails; the `Result` mirrors `UnixStream`.
    pub fn set_nonblocking(&mut self, nonblocking: bool) -> io::Result<()> {
        self.half.waiter.nonblocking = nonblocking;
        Ok(())
    }

    /// Limits how long a blocking write waits in total. `None` waits indefinitely.
    ///
    /// # Errors
    ///
    /// `InvalidInput`: the timeout is zero.
    pub fn set_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.half.waiter.set_timeout(timeout)
    }

    /// Shuts the direction down: the peer reads what is queued, then the end.
    ///
    /// # Errors
    ///
    /// Never fails; the `Result` mirrors `UnixStream`.
    pub fn shutdown(&mut self) -> io::Result<()> {
        self.producer.pipe().end(FIN);
        self.refuse();
        Ok(())
    }

    /// Drops the half and resets its direction: the peer reads what is queued, then gets
    /// `ConnectionReset`, unless either side had already shut the direction down.
    pub fn abort(mut self) {
        self.half.reset_on_drop();
    }

    /// Returns whether the peer has dropped its end, or both of its halves.
    #[must_use]
    pub fn peer_gone(&self) -> bool {
        self.half.peer_gone()
    }

    /// Returns the number of bytes that wait for the peer to read them.
    #[must_use]
    pub fn queued(&self) -> u64 {
        self.producer.pipe().queued()
    }

    /// Returns `Ok` once the device has accepted the request of this end.
    pub(crate) fn finish_connect(&self) -> io::Result<()> {
        // The device's drop ends its reading before its writing. The first end already makes this
        // end's descriptor ready, so it must already count as the refusal. So does the shutdown of
        // this end. Look for it before the state: the device may confirm and then be dropped in
        // between.
        let is_ended = self.producer.pipe().space.load().has(ENDED);
        match self.half.connect_state() {
            ConnectState::Connected => Ok(()),
            ConnectState::Connecting if !is_ended => Err(ErrorKind::WouldBlock.into()),
            _ => Err(self.end(CONNECTING).into()),
        }
    }

    /// Whether the device no longer reads. It says so in the word of the data first, which is the
    /// one that a write looks at.
    fn is_ended_by_device(&self) -> bool {
        let data = self.producer.pipe().data.load();
        data.has(READ_SHUT | READER_RESET)
    }

    /// Requests a connection, before the device has its end. Until it answers, nothing can be
    /// written.
    pub(crate) fn request(&mut self, request: &[u8]) {
        self.producer.request(request);
    }

    /// Notes that the peer has requested a connection.
    pub(crate) fn set_answer_pending(&mut self) {
        self.answer = Some(Answer::default());
    }

    /// Whether the next bytes written belong to the answer.
    pub(crate) const fn is_answer_pending(&self) -> bool {
        self.answer.is_some()
    }

    /// Confirms out of band, unless the opener has left.
    pub(crate) fn confirm(&mut self) -> io::Result<()> {
        self.answer = None;
        if self.peer_gone() {
            return Err(self.end(WRITING).into());
        }
        self.half.connection.confirm(self.half.side);
        Ok(())
    }

    /// Parses the answer in `buf`, and writes the bytes after it to the pipe.
    #[cold]
    pub(crate) fn write_answer(&mut self, buf: &[u8]) -> io::Result<usize> {
        let taken = self.take_answer(buf)?;
        if self.is_answer_pending() {
            return Ok(taken);
        }
        // Part of `buf` has been consumed, so an error of the rest is left to the next call.
        let rest = self.write(&buf[taken..]);
        Ok(taken + rest.unwrap_or(0))
    }

    /// Parses the part of the answer in `buf`. Returns how many bytes of `buf` are thereby
    /// consumed.
    #[cold]
    pub(crate) fn take_answer(&mut self, buf: &[u8]) -> io::Result<usize> {
        let gone = self.peer_gone();
        let Some(answer) = &mut self.answer else {
            return Ok(0);
        };
        if gone {
            return Err(self.end(WRITING).into());
        }
        let (taken, parsed) = answer.take(buf);
        if parsed == Parsed::Unfinished {
            return Ok(taken);
        }
        self.answer = None;
        if parsed == Parsed::Bad {
            self.half.connection.reject(self.half.side);
            return Ok(buf.len()); // as with a socket, the bytes count as written but are not read
        }
        self.half.connection.confirm(self.half.side);
        Ok(taken)
    }

    /// If an answer is pending, there will be none.
    fn refuse(&mut self) {
        if self.answer.take().is_some() {
            self.half.connection.refuse(self.half.side);
        }
    }

    /// Repeats `attempt`, which receives the number of bytes queued so far, until all `len` bytes
    /// are queued or the wait ends.
    #[inline]
    pub(crate) fn transfer(
        &mut self,
        len: usize,
        mut attempt: impl FnMut(&mut Producer, usize) -> Progress,
    ) -> io::Result<usize> {
        let mut deadline = Deadline::default();
        let mut done = 0;
        loop {
            let refusal = match attempt(&mut self.producer, done) {
                Progress::Done(bytes) => {
                    done += bytes;
                    if done == len || self.half.waiter.nonblocking {
                        return Ok(done);
                    }
                    continue;
                }
                Progress::Ended => self.end(WRITING).into(),
                Progress::Blocked => match self.wait(&mut deadline) {
                    Ok(()) => continue,
                    Err(refusal) => refusal,
                },
            };
            // Bytes that are queued cannot be taken back, so a partial write is a success. The next
            // call returns the error.
            return if done > 0 { Ok(done) } else { Err(refusal) };
        }
    }

    /// Repeats `attempt` until it makes progress, or leaves the waker of `cx` instead of waiting.
    #[inline]
    pub(crate) fn poll_transfer(
        &mut self,
        cx: &Context<'_>,
        mut attempt: impl FnMut(&mut Producer) -> Progress,
    ) -> Poll<io::Result<usize>> {
        loop {
            match attempt(&mut self.producer) {
                Progress::Done(bytes) => {
                    self.half.waiter.end_task_wait();
                    return Poll::Ready(Ok(bytes));
                }
                Progress::Ended => return Poll::Ready(Err(self.end(WRITING).into())),
                Progress::Blocked => ready!(self.poll_wait(cx))?,
            }
        }
    }

    #[cold]
    fn poll_wait(&mut self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        if let ConnectState::Refused | ConnectState::BadAnswer = self.half.connect_state() {
            return Poll::Ready(Err(self.end(WRITING).into()));
        }
        let waited = ready!(self.poll_task(cx));
        Poll::Ready(waited.map_err(|gave_up| gave_up.into_error(WRITING, self.half.fd)))
    }

    /// Leaves the waker of `cx` until the device has answered the request of this end.
    pub(crate) fn poll_connected(&mut self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        let waited = match self.half.connect_state() {
            ConnectState::Connecting => self.poll_task(cx),
            _ => Poll::Ready(Ok(())),
        };
        // Check the state again. An answer that arrived before the waker was left does not wake it.
        match (self.half.connect_state(), waited) {
            (ConnectState::Connected, _) => {
                self.half.waiter.end_task_wait();
                Poll::Ready(Ok(()))
            }
            (ConnectState::Connecting, Poll::Pending) => Poll::Pending,
            (ConnectState::Connecting, Poll::Ready(Err(gave_up))) => {
                Poll::Ready(Err(gave_up.into_error(CONNECTING, self.half.fd)))
            }
            _ => Poll::Ready(Err(self.end(CONNECTING).into())),
        }
    }

    fn poll_task(&mut self, cx: &Context<'_>) -> Poll<Result<(), GaveUp>> {
        let (doorbell, want) = (&self.producer.pipe().space, self.producer.want());
        self.half.waiter.poll_task(doorbell, want, cx.waker())
    }

    #[cold]
    fn wait(&mut self, deadline: &mut Deadline) -> io::Result<()> {
        match self.half.connect_state() {
            ConnectState::Connected => {}
            ConnectState::Connecting => return Err(ErrorKind::WouldBlock.into()),
            ConnectState::Refused | ConnectState::BadAnswer => {
                return Err(self.end(WRITING).into());
            }
        }
        let (doorbell, want) = (&self.producer.pipe().space, self.producer.want());
        let waited = self.half.waiter.wait(doorbell, want, Pace::Calm, deadline);
        waited.map_err(|gave_up| gave_up.into_error(WRITING, self.half.fd))
    }

    /// The error of a write after the end.
    #[cold]
    fn end(&self, call: &'static str) -> StreamError {
        let fd = self.half.fd;
        // Before the connection is established, an end by the device is a refusal; an end by this
        // end's own `shutdown` is not. Look for it before the state, as in `finish_connect`.
        let is_ended_by_device = self.is_ended_by_device();
        match self.half.connect_state() {
            ConnectState::BadAnswer => return StreamError::BadAnswer { call, fd },
            ConnectState::Refused => return StreamError::Refused { call, fd },
            ConnectState::Connecting if is_ended_by_device => {
                return StreamError::Refused { call, fd };
            }
            ConnectState::Connecting | ConnectState::Connected => {}
        }
        if self.producer.pipe().data.load().has(FIN | READ_SHUT) {
            StreamError::ShutDown { call, fd }
        } else {
            StreamError::Reset { call, fd }
        }
    }
}

impl Write for VsockInnerWriter {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        if self.is_answer_pending() {
            return self.write_answer(buf);
        }
        self.transfer(buf.len(), |producer, done| {
            producer.write(once(&buf[done..]), buf.len() - done)
        })
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let len = total(bufs.iter().map(|buf| buf.len()));
        if len == 0 {
            return Ok(0);
        }
        if self.is_answer_pending() {
            return self.write_answer(first(bufs));
        }
        self.transfer(len, |producer, done| {
            producer.write(rest(bufs, done), len - done)
        })
    }

    /// Does nothing: written bytes are already visible to the peer.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for VsockInnerWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.half.show(f, "VsockInnerWriter", self.queued())
    }
}

impl Drop for VsockInnerWriter {
    fn drop(&mut self) {
        let pipe = self.producer.pipe();
        // Close the descriptor first, because ending the direction would make it ready.
        pipe.space.close();
        self.half.connection.credit_for(self.half.side).close();
        // In a whole stream, the reading half was dropped just before and has checked for unread
        // bytes.
        let follows =
            self.half.owner == Owner::Stream && self.half.incoming().data.load().has(READER_RESET);
        let resets = self.half.drop_resets() || follows;
        pipe.end(if resets { WRITER_RESET } else { FIN });
        self.refuse();
        self.half.leave();
    }
}
