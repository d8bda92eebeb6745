// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The reading half of a stream.

use std::fmt;
use std::io::{self, ErrorKind, IoSliceMut, Read};
use std::iter::once;
use std::mem;
use std::ops::DerefMut;
#[cfg(not(loom))]
use std::os::fd::{AsFd, BorrowedFd};
use std::os::fd::{AsRawFd, RawFd};
use std::thread::panicking;
use std::time::Duration;

use crate::canceller::Canceller;
use crate::connection::{Connection, Side, Standing};
use crate::error::StreamError;
use crate::ring::{Consumer, Progress};
use crate::spin::Pace;
use crate::sync::{Arc, EventFd};
use crate::wait::{Deadline, GaveUp, Patience};
use crate::word::{FIN, READ_SHUT};

/// The reading half of a [`VsockInnerStream`](crate::VsockInnerStream).
///
/// It has its own mode and timeout. Dropping it closes its direction alone: the peer's writes are
/// `BrokenPipe`; `ConnectionReset` if bytes were left unread, if its thread panics, or by
/// [`abort`](Self::abort). After [`shutdown`](Self::shutdown) they stay `BrokenPipe`.
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
    consumer: Consumer,
    patience: Patience,
    /// Something was written at this end since the last read: the next wait is for an answer.
    expects_answer: bool,
    /// Something was read since the last write at this end: the next write is an answer.
    owes_answer: bool,
    fd: RawFd,
    /// What `fd` is the number of. It is closed when this half is dropped.
    handle: Arc<EventFd>,
    side: Side,
    /// It is a part of a stream: both halves are dropped together, this one first.
    pub(crate) whole: bool,
    aborted: bool,
    connection: Arc<Connection>,
}

impl VsockInnerReader {
    /// Makes its descriptor now, because `as_raw_fd` cannot fail later.
    pub(crate) fn new(
        connection: &Arc<Connection>,
        side: Side,
        spin_budget: Duration,
    ) -> io::Result<Self> {
        let ring = connection.incoming(side);
        let handle = ring.data.install_fd()?;
        Ok(Self {
            fd: handle.as_raw_fd(),
            handle,
            consumer: Consumer::new(Arc::clone(ring), spin_budget),
            patience: Patience::new(spin_budget),
            expects_answer: false,
            owes_answer: false,
            side,
            whole: true,
            aborted: false,
            connection: Arc::clone(connection),
        })
    }

    /// Reads without taking: the next read returns the same bytes. Waits as a read does.
    ///
    /// # Errors
    ///
    /// As a read.
    pub fn peek(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        self.transfer("peeking at", |consumer| consumer.peek(buf))
    }

    /// Makes reads return `WouldBlock` (`true`) or wait (`false`) where nothing is there.
    ///
    /// # Errors
    ///
    /// None; the result is for the sake of sockets' users.
    pub fn set_nonblocking(&mut self, nonblocking: bool) -> io::Result<()> {
        self.patience.nonblocking = nonblocking;
        Ok(())
    }

    /// Bounds how long a blocking read waits; `None` waits for ever.
    ///
    /// # Errors
    ///
    /// `InvalidInput`: the timeout is zero.
    pub fn set_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.patience.set_timeout(timeout)
    }

    /// Ends the direction: what is queued can still be read, and the peer's writes fail with
    /// `BrokenPipe`.
    ///
    /// # Errors
    ///
    /// None; the result is for the sake of sockets' users.
    pub fn shutdown(&mut self) -> io::Result<()> {
        self.consumer.shut_down();
        Ok(())
    }

    /// Drops the half, with a reset of its direction: the peer's writes are `ConnectionReset`, unless
    /// either side has shut the direction down before.
    pub fn abort(mut self) {
        self.note_abort();
    }

    /// From now on the drop is a reset.
    pub(crate) const fn note_abort(&mut self) {
        self.aborted = true;
    }

    /// Ends the waits of this half, from any thread.
    #[must_use]
    pub fn canceller(&self) -> Canceller {
        Canceller::of_reads(self.connection.incoming(self.side))
    }

    /// Whether the peer's end has been dropped, or both halves of it.
    #[must_use]
    pub fn peer_gone(&self) -> bool {
        self.connection.is_gone(self.side.peer())
    }

    /// How many bytes wait to be read.
    #[must_use]
    pub fn queued(&self) -> u64 {
        self.consumer.queued()
    }

    /// It was made with the half: taking it does not fail.
    fn take_fd(&self) {
        drop(self.consumer.ring().data.take_fd(self.consumer.want()));
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(crate) const fn side(&self) -> Side {
        self.side
    }

    /// Whether something has been taken.
    pub(crate) fn has_begun(&self) -> bool {
        self.consumer.has_begun()
    }

    /// A write of this end has come to this. Only one that has carried bytes is an answer, or awaits
    /// one.
    #[inline]
    pub(crate) fn wrote<E>(&mut self, written: &Result<usize, E>) {
        if !matches!(written, Ok(1..)) {
            return;
        }
        self.expects_answer = true;
        if mem::take(&mut self.owes_answer) {
            self.consumer.look_ahead();
        }
    }

    /// Attempts until it got somewhere, or the patience is at its end.
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
                    self.expects_answer = false;
                    self.owes_answer = true;
                    return Ok(bytes);
                }
                Progress::Ended => return self.end(call),
                Progress::Blocked => self.wait(call, &mut deadline)?,
            }
        }
    }

    #[cold]
    fn wait(&mut self, call: &'static str, deadline: &mut Deadline) -> io::Result<()> {
        let pace = if self.expects_answer {
            Pace::Hurry
        } else {
            Pace::Calm
        };
        if self.connection.standing(self.side) == Standing::Pending {
            return Err(ErrorKind::WouldBlock.into());
        }
        let (gate, want) = (&self.consumer.ring().data, self.consumer.want());
        let polled = self.patience.poll(gate, want, pace, deadline);
        if polled == Ok(true) {
            return Ok(());
        }
        self.consumer.rest();
        let gate = &self.consumer.ring().data;
        match polled.and_then(|_| deadline.park(gate, want)) {
            Ok(()) => Ok(()),
            Err(GaveUp::WouldBlock) => Err(ErrorKind::WouldBlock.into()),
            Err(GaveUp::TimedOut) => Err(StreamError::TimedOut { call, fd: self.fd }.into()),
            Err(GaveUp::Cancelled) => Err(StreamError::Cancelled { call, fd: self.fd }.into()),
        }
    }

    /// What a read at the end returns: a reset, if nothing else has ended the direction.
    #[cold]
    fn end(&self, call: &'static str) -> io::Result<usize> {
        let fd = self.fd;
        match self.connection.standing(self.side) {
            Standing::Connected | Standing::Pending => {}
            Standing::Refused => return Err(StreamError::Refused { call, fd }.into()),
            Standing::BadAnswer => return Err(StreamError::BadAnswer { call, fd }.into()),
        }
        if self.consumer.ring().data.load().has(FIN | READ_SHUT) {
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
        self.transfer("reading from", |consumer| {
            consumer.read(once(&mut *buf), len)
        })
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let len = bufs
            .iter()
            .fold(0, |len: usize, buf| len.saturating_add(buf.len()));
        if len == 0 {
            return Ok(0);
        }
        self.transfer("reading from", |consumer| {
            consumer.read(bufs.iter_mut().map(DerefMut::deref_mut), len)
        })
    }
}

impl AsRawFd for VsockInnerReader {
    /// For polling only: readable when a read would not return `WouldBlock`.
    fn as_raw_fd(&self) -> RawFd {
        self.take_fd();
        self.handle.as_raw_fd()
    }
}

#[cfg(not(loom))]
impl AsFd for VsockInnerReader {
    /// For polling only, as `as_raw_fd`.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.take_fd();
        self.handle.as_fd()
    }
}

impl fmt::Debug for VsockInnerReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VsockInnerReader")
            .field("side", &self.side)
            .field("fd", &self.fd)
            .field("nonblocking", &self.patience.nonblocking)
            .field("queued", &self.queued())
            .finish_non_exhaustive()
    }
}

impl Drop for VsockInnerReader {
    fn drop(&mut self) {
        // First, because the end would ring at it.
        self.consumer.ring().data.close_fd();
        // An end that has shut down its writing has told the peer all that it had to tell.
        let has_ended = self.whole && self.connection.outgoing(self.side).data.load().has(FIN);
        let is_reset = self.aborted || panicking();
        self.consumer
            .close(|leaves_bytes| !has_ended && (is_reset || leaves_bytes));
        self.connection.leave(self.side);
    }
}

#[cfg(loom)]
impl VsockInnerReader {
    pub(crate) fn gate(&self) -> &crate::gate::Gate {
        &self.consumer.ring().data
    }
}
