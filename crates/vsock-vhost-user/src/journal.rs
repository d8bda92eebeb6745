// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The log messages of a device, with a limit for each message.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use vsock_epoll::Waker;
use vsock_proto::GuestCid;
pub(crate) use vsock_sockets::rate_limit::Line;
use vsock_sockets::rate_limit::{LeftOut, RateLimits};

/// The log of one device. [`RateLimits`] decide how often a repeated message is logged. The number
/// of messages that were left out is logged with the next one of the kind, by
/// [`tell`](Self::tell) if there is no next one, or when the journal is dropped.
///
/// One thread calls `tell`, and any thread can leave a message out. If that makes a report due
/// earlier, the journal wakes the thread that calls `tell`.
///
/// Each device has its own journal, so no guest can suppress the messages of another.
pub(crate) struct Journal {
    guest: GuestCid,
    start: Instant,
    limits: Mutex<RateLimits<Line>>,
    /// Wakes the thread that calls [`tell`](Self::tell).
    waker: Waker,
}

impl Journal {
    pub(crate) fn new(guest: GuestCid, waker: Waker) -> Self {
        Self {
            guest,
            start: Instant::now(),
            limits: Mutex::new(RateLimits::default()),
            waker,
        }
    }

    /// Returns the guest's CID, with which each message begins.
    pub(crate) const fn guest(&self) -> GuestCid {
        self.guest
    }

    /// Decides whether to log the message now, for [`say`]. If so, returns how many were left out
    /// before it.
    pub(crate) fn admit(&self, line: Line) -> Option<LeftOut> {
        let (left_out, to_tell_earlier) = {
            let mut limits = self.limits();
            let due = limits.due();
            let left_out = limits.admit(self.start.elapsed(), line);
            (left_out, left_out.is_none() && limits.due() != due)
        };
        // Without the lock: the woken thread needs it.
        if to_tell_earlier {
            self.waker.wake();
        }
        left_out.map(LeftOut)
    }

    /// Logs how many messages were left out, for each kind for which that is due. Returns how long
    /// until the next report is due, if no other message is logged until then.
    pub(crate) fn tell(&self) -> Option<Duration> {
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

    /// Logs the report of one kind of message; returns whether one was due.
    fn tell_one(&self, now: Duration) -> bool {
        let owed = self.limits().owed(now);
        // Without the lock: the process's logger may block.
        if let Some((line, count)) = owed {
            let Line {
                level,
                target,
                text,
            } = line;
            let guest = self.guest;
            log::log!(
                target: target,
                level,
                "guest {guest}: {count} lines like \"{text}\" were left out"
            );
        }
        owed.is_some()
    }

    fn limits(&self) -> MutexGuard<'_, RateLimits<Line>> {
        // A panic cannot leave counts and times inconsistent.
        self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        while self.tell_one(Duration::MAX) {}
    }
}

/// Logs a message in a [`Journal`], prefixed with the guest's CID, within its limit:
/// `say!(journal, Warn, "cannot watch descriptor {fd}: {error}")`. Arguments that are not variables
/// need a name: `say!(journal, Debug, "features {features:#x}", features = self.features)`.
macro_rules! say {
    ($journal:expr, $level:ident, $text:literal $(, $name:ident = $argument:expr)* $(,)?) => {{
        let journal: &$crate::journal::Journal = &$journal;
        let line = $crate::journal::Line {
            level: log::Level::$level,
            target: module_path!(),
            text: $text,
        };
        $crate::journal::say_line(journal, line, format_args!($text $(, $name = $argument)*));
    }};
}

pub(crate) use say;

/// Logs `words` under the limit of `line`. The arguments are formatted only if the message is
/// logged.
pub(crate) fn say_line(journal: &Journal, line: Line, words: fmt::Arguments<'_>) {
    // A message that the logger does not want is not counted.
    if log::log_enabled!(target: line.target, line.level) {
        if let Some(left_out) = journal.admit(line) {
            let guest = journal.guest();
            log::log!(target: line.target, line.level, "guest {guest}: {words}{left_out}");
        }
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use std::cell::RefCell;
    use std::mem;

    use log::{LevelFilter, Log, Metadata, Record};

    use super::{Duration, Journal};

    thread_local! {
        static LINES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    }

    struct Capture;

    impl Log for Capture {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn log(&self, record: &Record<'_>) {
            let line = format!("{} {}", record.level(), record.args());
            LINES.with_borrow_mut(|lines| lines.push(line));
        }

        fn flush(&self) {}
    }

    /// Returns what this thread has logged since its last call. The first call starts it.
    pub(crate) fn logged() -> Vec<String> {
        // Another test may have been the first.
        let _set = log::set_logger(&Capture);
        log::set_max_level(LevelFilter::Debug);
        LINES.with_borrow_mut(mem::take)
    }

    impl Journal {
        /// Lets time pass.
        pub(crate) fn advance(&mut self, time: Duration) {
            self.start -= time;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use vsock_epoll::{DriverEvents, MuxerDriver};
    use vsock_sockets::rate_limit::{BURST, INTERVAL};

    use super::testing::logged;
    use super::*;

    fn journal(cid: u64) -> Journal {
        woken_journal(cid).0
    }

    /// Creates a journal, and returns the events of the loop that it wakes.
    fn woken_journal(cid: u64) -> (Journal, DriverEvents) {
        let event_loop = MuxerDriver::new().unwrap();
        let journal = Journal::new(GuestCid::try_from(cid).unwrap(), event_loop.waker());
        (journal, event_loop.events())
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
        let mut journal = journal(3);
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
        let (noisy, other) = (journal(3), journal(4));
        logged();
        for _ in 0..100 {
            say!(noisy, Warn, "noise");
        }
        assert_eq!(logged().len(), BURST as usize);
        say!(noisy, Warn, "a line");
        say!(other, Warn, "noise");
        assert_eq!(logged(), ["WARN guest 3: a line", "WARN guest 4: noise"]);
    }

    #[test]
    fn t131_omitted_lines_are_reported_after_a_quiet_interval_or_at_the_end() {
        let mut journal = journal(3);
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
        let (mut journal, mut events) = woken_journal(3);
        logged();
        let mut wakes = || events.wait(Some(Duration::ZERO)).unwrap();
        let mut flood = |journal: &Journal, count| {
            let say_it = |_| {
                say!(journal, Warn, "a line");
                wakes()
            };
            (0..count).map(say_it).sum::<usize>()
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
        assert_eq!(wakes(), 0, "its report is due later");
    }

    #[test]
    fn a_line_that_the_logger_filters_out_is_not_counted() {
        let journal = journal(3);
        logged();
        for _ in 0..100 {
            say!(journal, Trace, "a line");
        }
        drop(journal);
        assert_eq!(logged(), [""; 0]);
    }
}
