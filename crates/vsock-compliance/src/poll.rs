// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Readiness of real descriptors, and waits with a deadline.
//!
//! Every wait in this crate uses this module. Thus no test sleeps to make something happen: it
//! waits for the event itself, and fails if the deadline passes.

use std::io;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

/// The time by which something must have happened.
///
/// ```
/// use std::time::Duration;
/// use vsock_compliance::poll::Deadline;
///
/// assert!(!Deadline::after(Duration::from_secs(3600)).passed());
/// assert!(Deadline::after(Duration::ZERO).passed());
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Option<Instant>);

impl Deadline {
    /// Returns the time after `wait`. If it is too far away for the clock, it never arrives.
    #[must_use]
    pub fn after(wait: Duration) -> Self {
        Self(Instant::now().checked_add(wait))
    }

    /// Returns the time that is left, or zero if the deadline has passed.
    #[must_use]
    pub fn left(self) -> Duration {
        self.0.map_or(Duration::MAX, |at| {
            at.saturating_duration_since(Instant::now())
        })
    }

    /// Returns whether the deadline has passed.
    #[must_use]
    pub fn passed(self) -> bool {
        self.left().is_zero()
    }
}

/// Measures how long a call took.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts the measurement.
    #[must_use]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Returns the time since the start.
    #[must_use]
    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

/// The event for which a descriptor is polled.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum PollInterest {
    /// `EPOLLIN`, on [`as_raw_fd`](std::os::fd::AsRawFd::as_raw_fd).
    Read,
    /// `EPOLLOUT`, on [`write_ready_fd`](vsock_backend_api::VsockStream::write_ready_fd).
    Write,
}

impl PollInterest {
    fn events(self) -> EventSet {
        match self {
            Self::Read => EventSet::IN,
            Self::Write => EventSet::OUT,
        }
    }
}

/// An event that epoll has reported for a descriptor.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PollReport(EventSet);

impl PollReport {
    /// Returns whether `EPOLLIN` was reported.
    #[must_use]
    pub fn readable(self) -> bool {
        self.0.contains(EventSet::IN)
    }

    /// Returns whether `EPOLLOUT` was reported.
    #[must_use]
    pub fn writable(self) -> bool {
        self.0.contains(EventSet::OUT)
    }

    /// Returns whether `EPOLLHUP`, `EPOLLRDHUP` or `EPOLLERR` was reported.
    #[must_use]
    pub fn hung_up(self) -> bool {
        self.0
            .intersects(EventSet::HANG_UP | EventSet::READ_HANG_UP | EventSet::ERROR)
    }
}

/// A descriptor that is registered in its own epoll instance.
///
/// ```
/// use std::io::Write;
/// use std::os::fd::AsRawFd;
/// use std::os::unix::net::UnixStream;
/// use std::time::Duration;
/// use vsock_compliance::poll::{Deadline, PollInterest, Watch};
///
/// # fn main() -> std::io::Result<()> {
/// let (mut near, far) = UnixStream::pair()?;
/// let mut edges = Watch::edges(far.as_raw_fd(), PollInterest::Read)?;
/// assert!(edges.now()?.is_none());
///
/// near.write_all(b"x")?;
/// edges.wait(Deadline::after(Duration::from_secs(10)))?;
/// assert!(edges.now()?.is_none(), "an edge is reported once");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Watch {
    epoll: Epoll,
    fd: RawFd,
    interest: PollInterest,
}

impl Watch {
    /// Registers the descriptor level-triggered: an event is reported for as long as it lasts.
    ///
    /// # Errors
    ///
    /// The errors of `epoll_create1` and `epoll_ctl`: there is no free descriptor, or `fd` is not
    /// open.
    pub fn level(fd: RawFd, interest: PollInterest) -> io::Result<Self> {
        Self::register(fd, interest, EventSet::empty())
    }

    /// Registers the descriptor edge-triggered (`EPOLLET`): each change is reported once. If `fd`
    /// is already ready, that is the first edge.
    ///
    /// # Errors
    ///
    /// As for [`level`](Self::level).
    pub fn edges(fd: RawFd, interest: PollInterest) -> io::Result<Self> {
        Self::register(fd, interest, EventSet::EDGE_TRIGGERED)
    }

    fn register(fd: RawFd, interest: PollInterest, mode: EventSet) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let events = interest.events() | EventSet::READ_HANG_UP | mode;
        epoll.ctl(ControlOperation::Add, fd, EpollEvent::new(events, 0))?;
        Ok(Self {
            epoll,
            fd,
            interest,
        })
    }

    /// Returns the current event, if any, without waiting. An edge-triggered watch then discards
    /// it.
    ///
    /// # Errors
    ///
    /// The errors of `epoll_wait`.
    pub fn now(&mut self) -> io::Result<Option<PollReport>> {
        self.poll(Duration::ZERO)
    }

    /// Waits for the next event.
    ///
    /// # Errors
    ///
    /// `TimedOut` if there was none by the deadline, and the errors of `epoll_wait`.
    pub fn wait(&mut self, deadline: Deadline) -> io::Result<PollReport> {
        loop {
            if let Some(report) = self.poll(deadline.left())? {
                return Ok(report);
            }
            if deadline.passed() {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("descriptor {} had no {:?} event", self.fd, self.interest),
                ));
            }
        }
    }

    /// Returns whether the registered descriptor is still open.
    ///
    /// The kernel removes a registration with the last reference to its file, so a number that was
    /// closed and reused for another file is not mistaken for it.
    #[must_use]
    pub fn is_open(&self) -> bool {
        let event = EpollEvent::new(self.interest.events(), 0);
        self.epoll
            .ctl(ControlOperation::Modify, self.fd, event)
            .is_ok()
    }

    fn poll(&mut self, wait: Duration) -> io::Result<Option<PollReport>> {
        let mut events = [EpollEvent::default()];
        match self.epoll.wait(millis(wait), &mut events) {
            Ok(0) => Ok(None),
            Ok(_) => Ok(Some(PollReport(events[0].event_set()))),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Converts to milliseconds for `epoll_wait`, rounded up so that a wait never ends early.
fn millis(wait: Duration) -> i32 {
    i32::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)
}

/// Returns whether `fd` is ready now.
///
/// # Errors
///
/// As for [`Watch::level`].
pub fn is_ready(fd: RawFd, interest: PollInterest) -> io::Result<bool> {
    let report = Watch::level(fd, interest)?.now()?;
    Ok(report.is_some_and(|report| match interest {
        PollInterest::Read => report.readable(),
        PollInterest::Write => report.writable(),
    }))
}

/// Returns whether `fd` is readable now.
///
/// # Errors
///
/// As for [`Watch::level`].
pub fn is_readable(fd: RawFd) -> io::Result<bool> {
    is_ready(fd, PollInterest::Read)
}

/// Returns whether `fd` is writable now.
///
/// # Errors
///
/// As for [`Watch::level`].
pub fn is_writable(fd: RawFd) -> io::Result<bool> {
    is_ready(fd, PollInterest::Write)
}

/// Waits until `fd` is ready.
///
/// # Errors
///
/// As for [`Watch::level`] and [`Watch::wait`].
pub fn wait_ready(fd: RawFd, interest: PollInterest, deadline: Deadline) -> io::Result<()> {
    Watch::level(fd, interest)?.wait(deadline).map(drop)
}

/// Checks `done` every millisecond, for conditions that no descriptor reports.
///
/// # Errors
///
/// `TimedOut` if it was not done by the deadline, and the errors of `epoll_create1`.
pub fn wait_until(deadline: Deadline, mut done: impl FnMut() -> bool) -> io::Result<()> {
    while !done() {
        if deadline.passed() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        pace(Duration::from_millis(1))?;
    }
    Ok(())
}

/// Pauses the caller for `step`, rounded up to milliseconds, to simulate a slow peer. Must not be
/// used to wait for an event.
///
/// # Errors
///
/// The errors of `epoll_create1`.
pub fn pace(step: Duration) -> io::Result<()> {
    let silent = Epoll::new()?;
    let deadline = Deadline::after(step);
    while !deadline.passed() {
        match silent.wait(millis(deadline.left()), &mut [EpollEvent::default()]) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
