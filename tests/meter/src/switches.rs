// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io;
use std::ops::Sub;

use nix::sys::resource::{UsageWho, getrusage};

/// How often a thread gave up its core.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Switches {
    /// Because it had nothing to do: each of them is a sleep.
    pub voluntary: u64,
    /// Because the scheduler had another use for the core.
    pub involuntary: u64,
}

impl Switches {
    /// Both kinds together.
    #[must_use]
    pub fn total(self) -> u64 {
        self.voluntary + self.involuntary
    }
}

impl Sub for Switches {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            voluntary: self.voluntary.saturating_sub(earlier.voluntary),
            involuntary: self.involuntary.saturating_sub(earlier.involuntary),
        }
    }
}

/// The context switches of the calling thread since it began.
///
/// # Errors
///
/// What `getrusage` answers.
///
/// ```
/// let before = vsock_meter::thread_switches()?;
/// std::thread::spawn(|| ()).join().ok();
/// let during = vsock_meter::thread_switches()? - before;
/// assert!(during.total() < 1000);
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn thread_switches() -> io::Result<Switches> {
    let usage = getrusage(UsageWho::RUSAGE_THREAD)?;
    Ok(Switches {
        voluntary: u64::try_from(usage.voluntary_context_switches()).unwrap_or(0),
        involuntary: u64::try_from(usage.involuntary_context_switches()).unwrap_or(0),
    })
}
