// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One timer for all waiting clients. All have the same timeout, so the oldest is late first.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};

/// A timer. Its descriptor is never read, so it must be watched edge-triggered.
#[derive(Debug)]
pub(super) struct Timer {
    fd: OwnedFd,
    set: Option<Instant>,
}

impl Timer {
    pub(super) fn new() -> io::Result<Self> {
        let fd = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC)?;
        Ok(Self { fd, set: None })
    }

    /// Notes that the timer has expired.
    pub(super) const fn has_fired(&mut self) {
        self.set = None;
    }

    /// Sets the timer, unless it is already set: it is then set for an earlier time.
    ///
    /// # Errors
    ///
    /// Errors of the operating system.
    pub(super) fn set(&mut self, until: Instant) -> io::Result<()> {
        if self.set.is_some() {
            return Ok(());
        }
        self.set = Some(until);
        let left = until.saturating_duration_since(Instant::now());
        // Zero would turn the timer off.
        let left = left.max(Duration::from_nanos(1));
        let once = Itimerspec {
            it_interval: Timespec::default(),
            it_value: Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            },
        };
        timerfd_settime(&self.fd, TimerfdTimerFlags::empty(), &once)?;
        Ok(())
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
