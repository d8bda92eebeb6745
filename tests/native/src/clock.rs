// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The machine's monotonic clock in nanoseconds, which is the same for sender and receiver in
//! different processes.

use std::io;

use nix::sys::prctl::{get_timerslack, set_timerslack};
use nix::sys::time::{TimeSpec, TimeValLike};
use nix::time::{ClockId, ClockNanosleepFlags, clock_gettime, clock_nanosleep};

/// A point in time, or a duration.
pub(crate) type Nanos = u64;

pub(crate) const MILLISECOND: Nanos = 1_000_000;

/// Returns the current time.
pub(crate) fn now() -> io::Result<Nanos> {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    Ok(u64::try_from(time.num_nanoseconds()).unwrap_or(0))
}

/// Sleeps until `moment`, or not at all if that has passed.
pub(crate) fn wait_until(moment: Nanos) -> io::Result<()> {
    let until = TimeSpec::nanoseconds(i64::try_from(moment).unwrap_or(i64::MAX));
    let absolute = ClockNanosleepFlags::TIMER_ABSTIME;
    loop {
        match clock_nanosleep(ClockId::CLOCK_MONOTONIC, absolute, &until) {
            Ok(_) => return Ok(()),
            Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Reduces the calling thread's timer slack while it exists: the thread is woken when it asked to
/// be, not up to 50 us later.
#[derive(Debug)]
pub(crate) struct Punctual(u64);

impl Punctual {
    pub(crate) fn new() -> io::Result<Self> {
        let before = u64::try_from(get_timerslack()?).unwrap_or(0);
        set_timerslack(1)?;
        Ok(Self(before))
    }
}

impl Drop for Punctual {
    fn drop(&mut self) {
        set_timerslack(self.0).ok(); // this value was valid before
    }
}
