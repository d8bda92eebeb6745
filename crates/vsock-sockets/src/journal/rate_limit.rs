// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Limits how often the same message is logged: a burst, and then one message for each interval.
//! Suppressed messages are counted, and the count is reported.
//!
//! Each message has a token bucket of [`BURST`] turns, refilled at one turn for each [`INTERVAL`].
//! Instead of a number of turns, it stores the time when the bucket is full again. The caller
//! passes the time in.

use std::time::Duration;

/// How often a message can be logged before it has to wait.
pub(super) const BURST: u32 = 10;

/// How long a message waits for each further turn after the burst. Unused turns accumulate up to
/// the burst.
pub(super) const INTERVAL: Duration = Duration::from_secs(10);

/// The messages of one source, each with its own turns. `K` identifies the message. Entries are
/// never removed, so there must be few different keys, such as places in the program.
#[derive(Debug)]
pub(super) struct RateLimits<K>(Vec<Turns<K>>);

/// The turns of one message.
#[derive(Debug)]
struct Turns<K> {
    key: K,
    /// When the message has all its turns again, if it takes none until then.
    full_at: Duration,
    /// How many messages were suppressed since the last one that was logged.
    left_out: u64,
}

impl<K> Turns<K> {
    const fn new(key: K) -> Self {
        Self {
            key,
            full_at: Duration::ZERO,
            left_out: 0,
        }
    }

    /// When the next turn is available.
    fn turn(&self) -> Duration {
        // A turn is available as long as at most `BURST - 1` of them are missing.
        self.full_at.saturating_sub(INTERVAL * (BURST - 1))
    }

    /// When to report the suppressed messages separately, if no further message reports them.
    fn due(&self) -> Option<Duration> {
        (self.left_out > 0).then(|| self.turn().saturating_add(INTERVAL))
    }

    /// Uses a turn, and returns how many messages were suppressed before it.
    fn take_turn(&mut self, now: Duration) -> u64 {
        self.full_at = self.full_at.max(now).saturating_add(INTERVAL);
        std::mem::take(&mut self.left_out)
    }
}

impl<K> Default for RateLimits<K> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: Copy + PartialEq> RateLimits<K> {
    /// Decides whether a message may be logged now. If so, returns how many were suppressed before
    /// it.
    pub(super) fn admit(&mut self, now: Duration, key: K) -> Option<u64> {
        let known = self.0.iter().position(|line| line.key == key);
        let index = known.unwrap_or_else(|| {
            self.0.push(Turns::new(key));
            self.0.len() - 1
        });
        let line = &mut self.0[index];
        if line.turn() > now {
            line.left_out = line.left_out.saturating_add(1);
            return None;
        }
        Some(line.take_turn(now))
    }

    /// Returns a message with suppressed occurrences, and their number, if a separate report is
    /// due: a turn has been available for an [`INTERVAL`], and no message has used it. The report
    /// uses the turn. `Duration::MAX` returns all of them, one for each call.
    pub(super) fn owed(&mut self, now: Duration) -> Option<(K, u64)> {
        let due = self.due().filter(|&due| due <= now)?;
        let line = self.0.iter_mut().find(|line| line.due() == Some(due))?;
        Some((line.key, line.take_turn(now)))
    }

    /// When [`owed`](Self::owed) will next return a message, if no other is logged until then.
    pub(super) fn due(&self) -> Option<Duration> {
        self.0.iter().filter_map(Turns::due).min()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BURST_LEN: usize = BURST as usize;

    #[test]
    fn t131_a_burst_is_written_then_one_line_per_interval_with_the_omitted_count() {
        let mut limits = RateLimits::default();
        let now = Duration::from_secs(1);
        for _ in 0..BURST {
            assert_eq!(limits.admit(now, 'a'), Some(0));
        }
        for _ in 0..7 {
            assert_eq!(limits.admit(now, 'a'), None);
        }
        assert_eq!(limits.admit(now, 'b'), Some(0), "another message");
        let before = now + INTERVAL - Duration::from_nanos(1);
        assert_eq!(limits.admit(before, 'a'), None);
        assert_eq!(limits.admit(now + INTERVAL, 'a'), Some(8));
        assert_eq!(limits.admit(now + INTERVAL, 'a'), None);
    }

    #[test]
    fn t131_omitted_lines_are_reported_once_after_a_quiet_interval() {
        let mut limits = RateLimits::default();
        for _ in 0..BURST + 3 {
            limits.admit(Duration::ZERO, 'a');
        }
        let due = 2 * INTERVAL;
        assert_eq!(limits.due(), Some(due));
        assert_eq!(limits.owed(due - Duration::from_nanos(1)), None);
        assert_eq!(limits.owed(due), Some(('a', 3)));
        assert_eq!(limits.owed(Duration::MAX), None);
        assert_eq!(limits.due(), None);
    }

    #[test]
    fn t131_quiet_time_allows_another_burst() {
        let mut limits = RateLimits::default();
        for round in 0..3 {
            let now = INTERVAL * BURST * round;
            let out = (0..50).filter(|_| limits.admit(now, 'a').is_some());
            assert_eq!(out.count(), BURST_LEN);
        }
    }

    #[derive(Clone, Debug)]
    enum Event {
        Line(u8),
        Tell,
    }

    /// Generates events, each with the milliseconds since the previous one.
    fn events() -> impl Strategy<Value = Vec<(u64, Event)>> {
        let pause = prop_oneof![8 => 0_u64..3, 2 => 0_u64..3000, 1 => 0_u64..60_000];
        let event = prop_oneof![9 => (0_u8..3).prop_map(Event::Line), 1 => Just(Event::Tell)];
        prop::collection::vec((pause, event), 0..400)
    }

    /// The times of logged messages, the suppressed ones that they reported, and all suppressed
    /// ones.
    #[derive(Default)]
    struct Log {
        times: Vec<Duration>,
        told: u64,
        left_out: u64,
    }

    impl Log {
        fn out(&mut self, now: Duration, told: u64) {
            self.times.push(now);
            self.told += told;
        }
    }

    proptest! {
        #[test]
        fn t131_lines_stay_within_the_bound_and_each_is_written_or_counted(events in events()) {
            let mut limits = RateLimits::default();
            let mut logs: [Log; 3] = Default::default();
            let mut now = Duration::ZERO;
            for (pause, event) in events {
                now += Duration::from_millis(pause);
                match event {
                    Event::Line(key) => match limits.admit(now, key) {
                        Some(told) => logs[usize::from(key)].out(now, told),
                        None => logs[usize::from(key)].left_out += 1,
                    },
                    Event::Tell => while let Some((key, told)) = limits.owed(now) {
                        prop_assert!(told > 0);
                        logs[usize::from(key)].out(now, told);
                    }
                }
                let some_are_owed = logs.iter().any(|log| log.left_out > log.told);
                prop_assert!(limits.due().is_none() || some_are_owed);
            }
            for log in &logs {
                for (index, &last) in log.times.iter().enumerate() {
                    for turns in 0..=index.saturating_sub(BURST_LEN) {
                        let Some(first) = index.checked_sub(BURST_LEN + turns) else { break };
                        let least = INTERVAL * u32::try_from(turns + 1).unwrap();
                        prop_assert!(last - log.times[first] >= least);
                    }
                }
            }
            while let Some((key, told)) = limits.owed(Duration::MAX) {
                logs[usize::from(key)].told += told;
            }
            for log in &logs {
                prop_assert_eq!(log.told, log.left_out);
            }
        }
    }
}
