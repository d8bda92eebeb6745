// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A log whose messages are limited. `vsock-vhost-user` shares this module. It is not part of the
//! public API.

use std::fmt::{self, Display};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use log::Level;

use crate::rate_limit::{LeftOut, Line, RateLimits};

/// Log messages that host processes can repeat. [`RateLimits`] decide how often each is logged. The
/// number of messages that were left out is logged with the next one of the kind, or when the
/// journal is dropped.
#[derive(Debug)]
pub struct Journal {
    target: &'static str,
    start: Instant,
    limits: Mutex<RateLimits<Line>>,
}

impl Journal {
    /// Creates a journal for messages with this target.
    #[must_use]
    pub fn new(target: &'static str) -> Self {
        Self {
            target,
            start: Instant::now(),
            limits: Mutex::new(RateLimits::default()),
        }
    }

    /// Logs `text` at the debug level.
    pub fn debug(&self, text: &'static str) {
        self.say(Level::Debug, text, format_args!(""));
    }

    /// Logs `text` and `cause` at the debug level. The limit is that of `text`, whatever the cause.
    pub fn debug_with(&self, text: &'static str, cause: impl Display) {
        self.say(Level::Debug, text, format_args!(": {cause}"));
    }

    /// Logs `text` at the error level.
    pub fn error(&self, text: &'static str) {
        self.say(Level::Error, text, format_args!(""));
    }

    /// Logs `text` and `rest` within the limit of `text`.
    fn say(&self, level: Level, text: &'static str, rest: fmt::Arguments<'_>) {
        let target = self.target;
        // A message that the logger does not want is not counted.
        if log::log_enabled!(target: target, level) {
            let line = Line {
                level,
                target,
                text,
            };
            let admitted = self.limits().admit(self.start.elapsed(), line);
            // Without the lock: the process's logger may block.
            if let Some(left_out) = admitted.map(LeftOut) {
                log::log!(target: target, level, "{text}{rest}{left_out}");
            }
        }
    }

    fn limits(&self) -> MutexGuard<'_, RateLimits<Line>> {
        // A panic cannot leave counts and times inconsistent.
        self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        let limits = self.limits.get_mut();
        let limits = limits.unwrap_or_else(PoisonError::into_inner);
        while let Some((line, count)) = limits.owed(Duration::MAX) {
            let Line {
                level,
                target,
                text,
            } = line;
            log::log!(target: target, level, "{count} lines like \"{text}\" were left out");
        }
    }
}
