// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A log that limits every message that others can repeat. `vsock-vhost-user` shares this module.
//! It is not part of the public API.

mod rate_limit;

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use log::Level;

pub use crate::__say as say;
use rate_limit::RateLimits;

/// The identity of a log message: its level, target and format string.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Line {
    pub level: Level,
    pub target: &'static str,
    /// The format string, without values.
    pub text: &'static str,
}

/// Log messages that others can repeat. Each message has its own limit, whatever its values: a
/// burst, and then one for each interval. The number of messages that were left out is logged with
/// the next one of the kind, by [`tell`](Self::tell) if there is no next one, or when the journal
/// is dropped.
///
/// One thread can call `tell`, and any thread can leave a message out. If that makes a report due
/// earlier, the journal wakes the thread that calls `tell`.
///
/// The default journal has no prefix and wakes no thread.
pub struct Journal {
    /// The beginning of each message.
    prefix: String,
    start: Instant,
    limits: Mutex<RateLimits<Line>>,
    /// Wakes the thread that calls [`tell`](Self::tell).
    wake: Box<dyn Fn() + Send + Sync>,
}

impl Journal {
    /// Creates a journal whose messages begin with `prefix`. It calls `wake` if
    /// [`tell`](Self::tell) must be called earlier than it has returned.
    #[must_use]
    pub fn new(prefix: String, wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            prefix,
            start: Instant::now(),
            limits: Mutex::default(),
            wake: Box::new(wake),
        }
    }

    /// Logs `words` within the limit of `line`. The arguments are formatted only if the message is
    /// logged. Usually called by [`say!`](say).
    pub fn say(&self, line: Line, words: fmt::Arguments<'_>) {
        // A message that the logger does not want is not counted.
        if !log::log_enabled!(target: line.target, line.level) {
            return;
        }
        let (left_out, is_due_earlier) = {
            let mut limits = self.limits();
            let due = limits.due();
            let left_out = limits.admit(self.start.elapsed(), line);
            (left_out, left_out.is_none() && limits.due() != due)
        };
        // Without the lock: the process's logger may block, and the woken thread needs the lock.
        match left_out {
            Some(0) => self.log(line, words),
            Some(count) => {
                self.log(
                    line,
                    format_args!("{words} ({count} more like this were left out)"),
                );
            }
            None if is_due_earlier => (self.wake)(),
            None => {}
        }
    }

    /// Logs how many messages were left out, for each kind for which that is due. Returns how long
    /// until the next report is due, if no other message is logged until then.
    pub fn tell(&self) -> Option<Duration> {
        loop {
            let now = {
                let limits = self.limits();
                // Usually nothing is due at all, so look at the clock only if something is.
                let due = limits.due()?;
                let now = self.start.elapsed();
                if now < due {
                    return Some(due - now);
                }
                now
            };
            self.tell_one(now);
        }
    }

    /// Logs how many messages were left out, for each kind, whether that is due or not.
    pub fn tell_all(&self) {
        while self.tell_one(Duration::MAX) {}
    }

    /// Lets time pass, for tests.
    pub fn advance(&mut self, time: Duration) {
        self.start -= time;
    }

    /// Logs the report of one kind of message; returns whether one was due.
    fn tell_one(&self, now: Duration) -> bool {
        let owed = self.limits().owed(now);
        // Without the lock: the process's logger may block.
        if let Some((line, count)) = owed {
            let text = line.text;
            self.log(
                line,
                format_args!("{count} lines like \"{text}\" were left out"),
            );
        }
        owed.is_some()
    }

    fn log(&self, line: Line, words: fmt::Arguments<'_>) {
        log::log!(target: line.target, line.level, "{}{words}", self.prefix);
    }

    fn limits(&self) -> MutexGuard<'_, RateLimits<Line>> {
        // A panic cannot leave counts and times inconsistent.
        self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Journal {
    fn default() -> Self {
        Self::new(String::new(), || {})
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal")
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.tell_all();
    }
}

/// Logs a message in a [`Journal`] within its limit:
/// `say!(journal, Warn, "cannot watch descriptor {fd}: {error}")`. Arguments that are not variables
/// need a name: `say!(journal, Debug, "features {features:#x}", features = self.features)`.
#[doc(hidden)]
#[macro_export]
macro_rules! __say {
    ($journal:expr, $level:ident, $text:literal $(, $name:ident = $argument:expr)* $(,)?) => {{
        let line = $crate::journal::Line {
            level: $crate::journal::Level::$level,
            target: module_path!(),
            text: $text,
        };
        $crate::journal::Journal::say(&$journal, line, format_args!($text $(, $name = $argument)*));
    }};
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use vsock_driver::logged;

    use super::rate_limit::{BURST, INTERVAL};
    use super::*;

    fn journal() -> Journal {
        Journal::new("guest 3: ".to_owned(), || {})
    }

    /// A value that counts how often it is formatted.
    struct Counted<'c>(&'c Cell<u32>);

    impl fmt::Display for Counted<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.set(self.0.get() + 1);
            write!(f, "{}", self.0.get())
        }
    }

    #[test]
    fn t131_a_repeated_line_is_written_in_a_burst_and_then_with_a_count() {
        let mut journal = journal();
        logged();
        let count = Cell::new(0);
        let say_it =
            |journal: &Journal| say!(journal, Warn, "number {number}", number = Counted(&count));
        for _ in 0..BURST + 5 {
            say_it(&journal);
        }
        let expected: Vec<_> = (1..=BURST)
            .map(|n| format!("WARN guest 3: number {n}"))
            .collect();
        assert_eq!(logged(), expected, "the others are not even formatted");
        journal.advance(INTERVAL);
        say_it(&journal);
        assert_eq!(
            logged(),
            ["WARN guest 3: number 11 (5 more like this were left out)"]
        );
    }

    #[test]
    fn t131_neither_a_line_nor_a_guest_silences_another() {
        let (noisy, other) = (journal(), Journal::default());
        logged();
        for _ in 0..100 {
            say!(noisy, Warn, "noise");
        }
        assert_eq!(logged().len(), BURST as usize);
        say!(noisy, Warn, "a line");
        say!(other, Warn, "noise");
        assert_eq!(logged(), ["WARN guest 3: a line", "WARN noise"]);
    }

    #[test]
    fn t131_omitted_lines_are_reported_after_a_quiet_interval_or_at_the_end() {
        let mut journal = journal();
        logged();
        let flood = |journal: &Journal| {
            for number in 0..BURST + 7 {
                say!(journal, Info, "number {number}");
            }
            logged();
        };
        assert_eq!(journal.tell(), None);
        flood(&journal);
        let wait = journal.tell().unwrap();
        assert!(wait > INTERVAL && wait <= 2 * INTERVAL, "{wait:?}");
        assert_eq!(logged(), [""; 0]);
        journal.advance(wait);
        assert_eq!(journal.tell(), None);
        let told = |count| {
            [format!(
                "INFO guest 3: {count} lines like \"number {{number}}\" were left out"
            )]
        };
        assert_eq!(logged(), told(7));
        flood(&journal);
        drop(journal);
        assert_eq!(logged(), told(BURST + 6), "one turn was available again");
    }

    #[test]
    fn t131_the_first_omitted_line_wakes_the_reporter() {
        let calls = Arc::new(AtomicUsize::new(0));
        let called = Arc::clone(&calls);
        let mut journal = Journal::new(String::new(), move || {
            // ORDER: only this thread uses the count.
            called.fetch_add(1, Ordering::Relaxed);
        });
        logged();
        let flood = |journal: &Journal, count| {
            for _ in 0..count {
                say!(journal, Warn, "a line");
            }
            // ORDER: only this thread uses the count.
            calls.swap(0, Ordering::Relaxed)
        };
        assert_eq!(flood(&journal, BURST), 0);
        assert_eq!(flood(&journal, 100), 1);
        journal.advance(INTERVAL);
        assert_eq!(
            flood(&journal, 1),
            0,
            "this message reports the earlier ones"
        );
        assert_eq!(flood(&journal, 100), 1);
        for _ in 0..100 {
            say!(journal, Warn, "another line");
        }
        assert_eq!(flood(&journal, 0), 0, "its report is due later");
    }

    #[test]
    fn a_line_that_the_logger_filters_out_is_not_counted() {
        let journal = journal();
        logged();
        for _ in 0..100 {
            say!(journal, Trace, "a line");
        }
        drop(journal);
        assert_eq!(logged(), [""; 0]);
    }
}
