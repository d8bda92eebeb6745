// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io;
use std::path::PathBuf;
use std::{fs, num};

use perf_event::events::Tracepoint;
use perf_event::{Builder, Counter};
use thiserror::Error;

/// Where the kernel mounts its trace file system: today, and before version 4.1.
const TRACE_ROOTS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// Why the system calls of a thread cannot be counted here.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SystemCallError {
    /// The tracepoint's number cannot be read.
    #[error("cannot read {}; this requires a mounted, readable tracefs", path.display())]
    Tracepoint {
        /// The file that holds the number.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// The tracepoint's file holds something else than a number.
    #[error("{} does not hold a number", path.display())]
    Number {
        /// The file.
        path: PathBuf,
        /// What is wrong with its text.
        source: num::ParseIntError,
    },
    /// The kernel does not let this process count.
    #[error("perf_event_open is not permitted; this requires root or CAP_PERFMON")]
    Open(#[source] io::Error),
    /// The counter cannot be switched or read.
    #[error("a counter of system calls failed")]
    Counter(#[source] io::Error),
}

/// Counts the system calls that the thread which opened it enters between start and stop.
///
/// The kernel counts; the thread pays some nanoseconds per system call and nothing else. Switching
/// the counter on and off happens outside of what it counts, but for the one call that stops it.
///
/// ```
/// use vsock_report::SystemCallCounter;
///
/// match SystemCallCounter::open() {
///     Ok(mut counter) => {
///         counter.start()?;
///         std::thread::yield_now();
///         assert_eq!(counter.stop()?, 1);
///     }
///     Err(why) => println!("not counted: {why}"),
/// }
/// # Ok::<(), vsock_report::SystemCallError>(())
/// ```
#[derive(Debug)]
pub struct SystemCallCounter(Counter);

impl SystemCallCounter {
    /// Opens a counter for the calling thread, switched off.
    ///
    /// # Errors
    ///
    /// The tracepoint cannot be found, or the kernel does not permit counting.
    pub fn open() -> Result<Self, SystemCallError> {
        let counter = Builder::new(Tracepoint::with_id(tracepoint()?))
            .include_kernel() // the tracepoint fires in the kernel
            .build()
            .map_err(SystemCallError::Open)?;
        Ok(Self(counter))
    }

    /// Starts counting, from zero.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn start(&mut self) -> Result<(), SystemCallError> {
        self.0.reset().map_err(SystemCallError::Counter)?;
        self.0.enable().map_err(SystemCallError::Counter)
    }

    /// Stops counting and returns how many system calls the thread has entered since the start.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn stop(&mut self) -> Result<u64, SystemCallError> {
        self.0.disable().map_err(SystemCallError::Counter)?;
        let calls = self.0.read().map_err(SystemCallError::Counter)?;
        Ok(calls.saturating_sub(1)) // the call that stopped the counter was counted too
    }
}

/// The number of the tracepoint that fires whenever a thread enters the kernel by a system call.
fn tracepoint() -> Result<u64, SystemCallError> {
    let mut failure = None;
    for root in TRACE_ROOTS {
        let path = PathBuf::from(root).join("events/raw_syscalls/sys_enter/id");
        match fs::read_to_string(&path) {
            Ok(text) => {
                return text
                    .trim()
                    .parse()
                    .map_err(|source| SystemCallError::Number { path, source });
            }
            Err(source) => {
                failure.get_or_insert(SystemCallError::Tracepoint { path, source });
            }
        }
    }
    Err(failure.unwrap_or_else(|| SystemCallError::Open(io::ErrorKind::NotFound.into())))
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::SystemCallCounter;

    #[test]
    fn every_system_call_of_the_thread_counts_once_and_no_other() {
        let mut counter = match SystemCallCounter::open() {
            Ok(counter) => counter,
            Err(why) => {
                println!("not checked: {why}");
                return;
            }
        };
        for calls in [0, 1, 1000] {
            counter.start().unwrap();
            for _ in 0..calls {
                thread::yield_now();
            }
            assert_eq!(counter.stop().unwrap(), calls);
        }
    }
}
