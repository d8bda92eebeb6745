// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Lines of other crates, some of which a front-end can repeat as fast as it likes.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use env_logger::Logger;
use log::{Level, Log, Metadata, Record};

use crate::limits::Limits;

/// The targets of the library and the program. The library has limits of its own, for each guest.
const OURS: &str = "vsock_vhost_user";

/// Logs lines of other crates as [`limits`](crate::limits) has it. What was left out of one is told by
/// the next line of its kind, or by the next of any kind if it is due, or at the end.
pub(super) struct Limited {
    logger: Logger,
    start: Instant,
    limits: Mutex<Limits<Site>>,
}

/// Where a line comes from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Site {
    level: Level,
    module: &'static str,
    line: u32,
    /// A hash of the thread's name. It has the guest's CID in it, so no guest silences another.
    thread: u64,
}

impl Site {
    fn of(record: &Record<'_>) -> Self {
        let mut thread = DefaultHasher::new();
        thread::current().name().hash(&mut thread);
        Self {
            level: record.level(),
            module: record.module_path_static().unwrap_or_default(),
            line: record.line().unwrap_or_default(),
            thread: thread.finish(),
        }
    }
}

impl Limited {
    pub(super) fn new(logger: Logger) -> Self {
        Self {
            logger,
            start: Instant::now(),
            limits: Mutex::new(Limits::new()),
        }
    }

    /// Tells all that was left out.
    pub(super) fn tell_all(&self) {
        self.tell(Duration::MAX);
    }

    fn tell(&self, now: Duration) {
        while let Some((site, count)) = self.next_owed(now) {
            let Site {
                level,
                module,
                line,
                ..
            } = site;
            self.logger.log(
                &Record::builder()
                    .level(level)
                    .target(module)
                    .args(format_args!(
                        "{count} lines like that of line {line} were left out"
                    ))
                    .build(),
            );
        }
    }

    fn next_owed(&self, now: Duration) -> Option<(Site, u64)> {
        self.limits().owed(now)
    }

    fn limits(&self) -> MutexGuard<'_, Limits<Site>> {
        // Counts and times: they are whole after a panic, too.
        self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log for Limited {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.logger.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.logger.matches(record) {
            return;
        }
        let now = self.start.elapsed();
        let left_out = if record.target().starts_with(OURS) {
            Some(0)
        } else {
            self.limits().admit(now, Site::of(record))
        };
        match left_out {
            None => {}
            Some(0) => self.logger.log(record),
            Some(count) => self.logger.log(
                &Record::builder()
                    .metadata(record.metadata().clone())
                    .args(format_args!(
                        "{} ({count} more like this were left out)",
                        record.args()
                    ))
                    .build(),
            ),
        }
        self.tell(now);
    }

    fn flush(&self) {}
}
