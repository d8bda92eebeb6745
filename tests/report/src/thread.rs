// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

/// The processor time of the calling thread since it began, in user space and in the kernel.
///
/// # Errors
///
/// What `getrusage` answers.
///
/// ```
/// let before = vsock_report::thread_processor_time()?;
/// let until = std::time::Instant::now() + std::time::Duration::from_millis(20);
/// while std::time::Instant::now() < until {}
/// assert!(vsock_report::thread_processor_time()? > before);
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn thread_processor_time() -> io::Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_THREAD)?;
    Ok(duration(usage.user_time()) + duration(usage.system_time()))
}

pub(crate) fn duration(time: TimeVal) -> Duration {
    let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
    let micros = u64::try_from(time.tv_usec()).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_micros(micros)
}

/// How often the calling thread has given up its core since it began, because it had nothing to do
/// or because the scheduler had another use for the core.
///
/// # Errors
///
/// What `getrusage` answers.
///
/// ```
/// let before = vsock_report::thread_switches()?;
/// std::thread::spawn(|| ()).join().ok();
/// assert!(vsock_report::thread_switches()? - before < 1000);
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn thread_switches() -> io::Result<u64> {
    let usage = getrusage(UsageWho::RUSAGE_THREAD)?;
    let both = usage.voluntary_context_switches() + usage.involuntary_context_switches();
    Ok(u64::try_from(both).unwrap_or(0))
}
