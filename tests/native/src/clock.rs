// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The machine's monotonic clock, which sender and receiver share whatever their processes, in
//! nanoseconds.

use std::io;

use nix::sys::prctl::{get_timerslack, set_timerslack};
use nix::sys::time::{TimeSpec, TimeValLike};
use nix::time::{ClockId, ClockNanosleepFlags, clock_gettime, clock_nanosleep};

/// A moment.
pub(crate) type Nanos = u64;

pub(crate) const MILLISECOND: Nanos = 1_000_000;

/// Now.
pub(crate) fn now() -> io::Result<Nanos> {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    Ok(u64::try_from(time.num_nanoseconds()).unwrap_or(0))
}

/// Waits until then; not at all if that has passed.
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

/// While it lives, the calling thread is woken when it asked for it, and not up to 50 us later.
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
        set_timerslack(self.0).ok(); // it was accepted before
    }
}
