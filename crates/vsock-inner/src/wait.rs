// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How one half waits: according to its mode and timeout, polling for a while before it sleeps.

use std::io::{self, ErrorKind};
use std::os::fd::RawFd;
use std::task::{Poll, Waker, ready};
use std::time::{Duration, Instant};

use crate::cancels::Cancels;
use crate::doorbell::Doorbell;
use crate::doorbell::waiting::Waited;
use crate::error::StreamError;
use crate::spin::{Pace, Spinner};
use crate::word::Position;

/// When a call gives up. The time starts with the first wait of the call.
#[derive(Debug, Default)]
pub(crate) struct Deadline(Option<Begun>);

/// The clock and the count of cancellations at the first wait of a call.
#[derive(Clone, Copy, Debug)]
struct Begun {
    /// `None`: never.
    until: Option<Instant>,
    cancels: Cancels,
}

/// Why a call stopped waiting.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum GaveUp {
    /// The mode is non-blocking.
    WouldBlock,
    /// The timeout has expired.
    TimedOut,
    /// A [`Canceller`](crate::Canceller) has ended the wait.
    Cancelled,
}

/// Mode, timeout and polling history of one half.
#[derive(Clone, Debug)]
pub(crate) struct Waiter {
    pub(crate) nonblocking: bool,
    timeout: Option<Duration>,
    spinner: Spinner,
    /// The doorbell's count of cancellations when the current task started to wait.
    task_since: Option<Cancels>,
}

impl Waiter {
    pub(crate) const fn new(spin_budget: Duration, timeout: Option<Duration>) -> Self {
        Self {
            nonblocking: false,
            timeout,
            spinner: Spinner::new(spin_budget),
            task_since: None,
        }
    }

    pub(crate) fn set_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        if timeout.is_some_and(|timeout| timeout.is_zero()) {
            return Err(StreamError::ZeroTimeout.into());
        }
        self.timeout = timeout;
        Ok(())
    }

    /// Waits until the other side's position is `want`, as mode and timeout allow. Polls first, at
    /// the given pace.
    pub(crate) fn wait(
        &mut self,
        doorbell: &Doorbell,
        want: Position,
        pace: Pace,
        deadline: &mut Deadline,
    ) -> Result<(), GaveUp> {
        if self.poll(doorbell, want, pace, deadline)? {
            return Ok(());
        }
        deadline.park(doorbell, want)
    }

    /// Polls as [`wait`](Self::wait) does. Returns whether the position was reached.
    pub(crate) fn poll(
        &mut self,
        doorbell: &Doorbell,
        want: Position,
        pace: Pace,
        deadline: &mut Deadline,
    ) -> Result<bool, GaveUp> {
        self.task_since = None;
        if self.nonblocking {
            return Err(GaveUp::WouldBlock);
        }
        // A time too far ahead for the clock never comes.
        let after = |timeout| Instant::now().checked_add(timeout);
        // Only the first wait of a call reads the clock and the count; later ones share its
        // deadline.
        let Begun { until, cancels } = *deadline.0.get_or_insert_with(|| Begun {
            until: self.timeout.and_then(after),
            cancels: doorbell.cancels(),
        });
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let ready = || doorbell.load().is_ready(want);
        // Spinning also ends on a cancellation, which `park` then reports.
        let found = self
            .spinner
            .spin(left, pace, || ready() || doorbell.cancels().end(cancels));
        Ok(found && ready())
    }

    /// Arranges for a task to be woken once the other side's position is `want`. Ignores mode and
    /// timeout, and does not poll.
    pub(crate) fn poll_task(
        &mut self,
        doorbell: &Doorbell,
        want: Position,
        waker: &Waker,
    ) -> Poll<Result<(), GaveUp>> {
        // The first pending poll remembers the count, so that a cancel and resume before the next
        // poll still ends the wait.
        let since = *self.task_since.get_or_insert_with(|| doorbell.cancels());
        let waited = ready!(doorbell.poll_wait(waker, want, since));
        self.task_since = None;
        Poll::Ready(waited.into_result())
    }

    /// Notes that the task no longer waits, because it has made progress or given up.
    #[inline]
    pub(crate) const fn end_task_wait(&mut self) {
        self.task_since = None;
    }
}

impl Waited {
    const fn into_result(self) -> Result<(), GaveUp> {
        match self {
            Self::Ready => Ok(()),
            Self::TimedOut => Err(GaveUp::TimedOut),
            Self::Cancelled => Err(GaveUp::Cancelled),
        }
    }
}

impl GaveUp {
    /// The error of `call` on the stream of `fd`.
    pub(crate) fn into_error(self, call: &'static str, fd: RawFd) -> io::Error {
        match self {
            Self::WouldBlock => ErrorKind::WouldBlock.into(),
            Self::TimedOut => StreamError::TimedOut { call, fd }.into(),
            Self::Cancelled => StreamError::Cancelled { call, fd }.into(),
        }
    }
}

impl Deadline {
    /// Sleeps until the other side's position is `want`. The time was started by the preceding
    /// poll.
    pub(crate) fn park(&self, doorbell: &Doorbell, want: Position) -> Result<(), GaveUp> {
        let (until, cancels) = match self.0 {
            Some(Begun { until, cancels }) => (until, cancels),
            None => (None, doorbell.cancels()),
        };
        doorbell.wait(want, until, cancels).into_result()
    }
}
