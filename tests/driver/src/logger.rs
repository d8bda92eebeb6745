// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A logger that keeps the lines.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

use log::{LevelFilter, Log, Metadata, Record};

static LINES: Mutex<Vec<(ThreadId, String)>> = Mutex::new(Vec::new());

struct Logger;

impl Log for Logger {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let line = format!("{} {}", record.level(), record.args());
        lines().push((thread::current().id(), line));
    }

    fn flush(&self) {}
}

/// Takes what this thread has logged since its last call, from the debug level on. The first call
/// in the process starts the logger.
#[expect(
    clippy::must_use_candidate,
    reason = "a call can also start or empty the log"
)]
pub fn logged() -> Vec<String> {
    // Another test may have been the first.
    let _set = log::set_logger(&Logger);
    log::set_max_level(LevelFilter::Debug);
    let own = thread::current().id();
    let mut lines = lines();
    let (taken, left) = lines.drain(..).partition(|(thread, _)| *thread == own);
    *lines = left;
    let taken: Vec<(ThreadId, String)> = taken;
    taken.into_iter().map(|(_, line)| line).collect()
}

/// Returns what all threads have logged and [`logged`] has not taken.
#[must_use]
pub fn logged_by_all_threads() -> Vec<String> {
    lines().iter().map(|(_, line)| line.clone()).collect()
}

fn lines() -> MutexGuard<'static, Vec<(ThreadId, String)>> {
    LINES.lock().unwrap_or_else(PoisonError::into_inner)
}
