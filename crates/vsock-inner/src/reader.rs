// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The reading half of a stream.

use std::fmt;
use std::io::{self, ErrorKind, IoSliceMut, Read};
use std::iter::once;
use std::ops::DerefMut;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use crate::connection::ConnectState;
use crate::error::StreamError;
use crate::half::{Half, Owner, total};
use crate::pipe::{Consumer, Progress};
use crate::ready_fd::ReadyFd;
use crate::spin::Pace;
use crate::sync::{Arc, EventFd};
use crate::wait::Deadline;
use crate::word::{FIN, READ_SHUT};

/// The reading half of a [`VsockInnerStream`](crate::VsockInnerStream).
///
/// It has its own mode and timeout. Dropping it closes only its direction. The peer's writes then
/// fail with `BrokenPipe`, or with `ConnectionReset` if bytes were left unread, the thread panics,
/// or the half was [aborted](Self::abort). After [`shutdown`](Self::shutdown) they always fail with
/// `BrokenPipe`.
///
/// ```
/// use std::io::{Read, Write};
/// use vsock_inner::VsockInnerStream;
///
/// let (near, mut far) = VsockInnerStream::pair()?;
/// let (mut reader, mut writer) = near.into_split();
/// let echo = std::thread::spawn(move || std::io::copy(&mut reader, &mut writer));
///
/// far.write_all(b"ping")?;
/// let mut answer = [0; 4];
/// far.read_exact(&mut answer)?;
/// assert_eq!(&answer, b"ping");
///
/// far.shutdown(std::net::Shutdown::Write)?;
/// assert_eq!(echo.join().unwrap()?, 4);
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct VsockInnerReader {
    pub(crate) half: Half,
    consumer: Consumer,
    last: LastTransfer,
    /// The descriptor of this end, closed when this half is dropped.
    handle: Arc<EventFd>,
}

/// The name of a read, for errors.
pub(crate) const READING: &str = "read from";

/// The last transfer of this end. Where requests and answers alternate, it predicts the next one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum LastTransfer {
    None,
    /// The next write is an answer.
    Read,
    /// The next wait is for an answer.
    Written,
}

impl VsockInnerReader {
    /// Creates the half with the descriptor of its end, which must exist from the start because
    /// `as_raw_fd` cannot fail.
    pub(crate) fn new(half: Half, handle: Arc<EventFd>, spin_budget: Duration) -> Self {
        Self {
            consumer: Consumer::new(Arc::clone(half.incoming()), spin_budget),
            half,
            last: LastTransfer::None,
            handle,
        }
    }

    /// Reads without consuming: the next read returns the same bytes. Waits like a read.
    ///
    /// # Errors
    ///
    /// As for a read.
    pub fn peek(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        self.transfer("peek at", |consumer| consumer.peek(buf))
    }

    /// Chooses what reads do if no data is available: return `WouldBlock` (`true`) or wait
    /// (`false`).
    ///
    /// # Errors
    ///
    /// Never fails; the `Result` mirrors `UnixStream`.
    pub fn set_nonblocking(&mut self, nonblocking: bool) -> io::Result<()> {
        self.half.waiter.nonblocking = nonblocking;
        Ok(())
    }

    /// Limits how long a blocking read waits. `None` waits indefinitely.
    ///
    /// # Errors
    ///
    /// `InvalidInput`: the timeout is zero.
    pub fn set_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.half.waiter.set_timeout(timeout)
    }

    /// Shuts the direction down. What is queued can still be read; the peer's writes fail with
    /// `BrokenPipe`.
    ///
    /// # Errors
    ///
    /// Never fails; the `Result` mirrors `UnixStream`.
    pub fn shutdown(&mut self) -> io::Result<()> {
        if self.consumer.shut_down() {
            self.half.connection.stopped_reading(self.half.side);
        }
        Ok(())
    }

    /// Drops the half and resets its direction: the peer's writes fail with `ConnectionReset`,
    /// unless either side had already shut the direction down.
    pub fn abort(mut self) {
        self.half.reset_on_drop();
    }

    /// Returns whether the peer has dropped its end, or both of its halves.
    #[must_use]
    pub fn peer_gone(&self) -> bool {
        self.half.peer_gone()
    }

    /// Returns the number of bytes that wait to be read.
    #[must_use]
    pub fn queued(&self) -> u64 {
        self.consumer.queued()
    }

    /// Discards the next `len` bytes, which must be available.
    pub(crate) fn skip(&mut self, mut len: usize) -> io::Result<()> {
        while len > 0 {
            match self.transfer(READING, |consumer| consumer.read_with(len, |_| {}))? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                skipped => len -= skipped,
            }
        }
        Ok(())
    }

    fn take_fd(&self) -> &EventFd {
        let data = &self.half.incoming().data;
        data.take_fd(self.consumer.want(), || ReadyFd::readable(&self.handle));
        &self.handle
    }

    /// Whether any bytes have been read.
    pub(crate) fn has_begun(&self) -> bool {
        self.consumer.has_begun()
    }

    /// Notes the result of a write of this end. Only a write that moved bytes is an answer, or
    /// expects one.
    #[inline]
    pub(crate) fn wrote<E>(&mut self, written: &Result<usize, E>) {
        if !matches!(written, Ok(1..)) {
            return;
        }
        if self.last == LastTransfer::Read {
            self.consumer.look_ahead();
        }
        self.last = LastTransfer::Written;
    }

    /// Repeats `attempt` until it makes progress or the wait ends.
    #[inline]
    pub(crate) fn transfer(
        &mut self,
        call: &'static str,
        mut attempt: impl FnMut(&mut Consumer) -> Progress,
    ) -> io::Result<usize> {
        let mut deadline = Deadline::default();
        loop {
            match attempt(&mut self.consumer) {
                Progress::Done(bytes) => {
                    self.last = LastTransfer::Read;
                    return Ok(bytes);
                }
                Progress::Ended => return self.end(call),
                Progress::Blocked => self.wait(call, &mut deadline)?,
            }
        }
    }

    /// Like [`transfer`](Self::transfer), but leaves the waker of `cx` instead of waiting.
    #[inline]
    pub(crate) fn poll_transfer(
        &mut self,
        cx: &Context<'_>,
        mut attempt: impl FnMut(&mut Consumer) -> Progress,
    ) -> Poll<io::Result<usize>> {
        loop {
            match attempt(&mut self.consumer) {
                Progress::Done(bytes) => {
                    self.half.waiter.end_task_wait();
                    self.last = LastTransfer::Read;
                    return Poll::Ready(Ok(bytes));
                }
                Progress::Ended => return Poll::Ready(self.end(READING)),
                Progress::Blocked => ready!(self.poll_wait(cx))?,
            }
        }
    }

    #[cold]
    fn poll_wait(&mut self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        self.consumer.rest();
        let (doorbell, want) = (&self.consumer.pipe().data, self.consumer.want());
        let waited = ready!(self.half.waiter.poll_task(doorbell, want, cx.waker()));
        Poll::Ready(waited.map_err(|gave_up| gave_up.into_error(READING, self.half.fd)))
    }

    #[cold]
    fn wait(&mut self, call: &'static str, deadline: &mut Deadline) -> io::Result<()> {
        if self.half.connect_state() == ConnectState::Connecting {
            return Err(ErrorKind::WouldBlock.into());
        }
        if self.half.connection.is_between_guests() {
            // The event may have reported that the peer stopped reading, without any data: clear
            // it. Data that has arrived since the attempt made no edge, because the descriptor was
            // ready. So read it now.
            self.consumer.settle();
            let (doorbell, want) = (&self.consumer.pipe().data, self.consumer.want());
            if doorbell.load().is_ready(want) {
                return Ok(());
            }
        }
        // After a write of this end, the wait is probably for the answer to it, which comes soon.
        let pace = match self.last {
            LastTransfer::Written => Pace::Hurry,
            LastTransfer::None | LastTransfer::Read => Pace::Calm,
        };
        let (doorbell, want) = (&self.consumer.pipe().data, self.consumer.want());
        let polled = self.half.waiter.poll(doorbell, want, pace, deadline);
        if polled == Ok(true) {
            return Ok(());
        }
        // This call is about to sleep or return, so the blocks kept for a busy reader can be
        // returned.
        self.consumer.rest();
        let doorbell = &self.consumer.pipe().data;
        let waited = polled.and_then(|_| deadline.park(doorbell, want));
        waited.map_err(|gave_up| gave_up.into_error(call, self.half.fd))
    }

    /// The result of a read at the end: a reset, unless the direction ended in another way.
    #[cold]
    fn end(&self, call: &'static str) -> io::Result<usize> {
        let fd = self.half.fd;
        match self.half.connect_state() {
            ConnectState::Connected | ConnectState::Connecting => {}
            ConnectState::Refused => return Err(StreamError::Refused { call, fd }.into()),
            ConnectState::BadAnswer => return Err(StreamError::BadAnswer { call, fd }.into()),
        }
        if self.consumer.pipe().data.load().has(FIN | READ_SHUT) {
            return Ok(0);
        }
        Err(StreamError::Reset { call, fd }.into())
    }
}

impl Read for VsockInnerReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let len = buf.len();
        self.transfer(READING, |consumer| consumer.read(once(&mut *buf), len))
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let len = total(bufs.iter().map(|buf| buf.len()));
        if len == 0 {
            return Ok(0);
        }
        self.transfer(READING, |consumer| {
            consumer.read(bufs.iter_mut().map(DerefMut::deref_mut), len)
        })
    }
}

impl AsRawFd for VsockInnerReader {
    /// For polling only: readable when a read would not return `WouldBlock`.
    fn as_raw_fd(&self) -> RawFd {
        self.take_fd().as_raw_fd()
    }
}

impl AsFd for VsockInnerReader {
    /// For polling only, like `as_raw_fd`.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.take_fd().as_fd()
    }
}

impl fmt::Debug for VsockInnerReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.half.show(f, "VsockInnerReader", self.queued())
    }
}

impl Drop for VsockInnerReader {
    fn drop(&mut self) {
        // Close the descriptor first, because ending the direction would make it ready.
        self.consumer.pipe().data.close();
        // After this end has shut down its writing, its drop is never a reset.
        let has_ended =
            self.half.owner == Owner::Stream && self.half.outgoing().data.load().has(FIN);
        let resets = self.half.drop_resets();
        self.consumer
            .close(|leaves_bytes| !has_ended && (resets || leaves_bytes));
        self.half.leave();
    }
}
