// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How often the same line goes to the log: a few times, then now and then, and what was left out
//! is counted. No clock, no lock.

use std::time::Duration;

/// How often a line goes out before it has to wait.
pub(crate) const BURST: u32 = 10;

/// How long a line that has used up its burst waits for each further turn. A turn that is not used
/// is saved, up to the burst.
pub(crate) const INTERVAL: Duration = Duration::from_secs(10);

/// The lines of one source, each with turns of its own. `K` says which line it is. There is an
/// entry for each that was ever asked for, so the kinds of lines must be few: places in a program
/// are.
#[derive(Debug)]
pub(crate) struct RateLimits<K>(Vec<Line<K>>);

#[derive(Debug)]
struct Line<K> {
    key: K,
    /// When it has all its turns again, if none is taken until then.
    full_at: Duration,
    /// How many were left out since the last one that went out.
    left_out: u64,
}

impl<K> Line<K> {
    const fn new(key: K) -> Self {
        Self {
            key,
            full_at: Duration::ZERO,
            left_out: 0,
        }
    }

    /// When it may go out again.
    fn turn(&self) -> Duration {
        self.full_at.saturating_sub(INTERVAL * (BURST - 1))
    }

    /// When what was left out is to be told, if no line goes out that could tell it.
    fn due(&self) -> Option<Duration> {
        (self.left_out > 0).then(|| self.turn().saturating_add(INTERVAL))
    }

    /// Uses a turn; returns how many were left out before it.
    fn take_turn(&mut self, now: Duration) -> u64 {
        self.full_at = self.full_at.max(now).saturating_add(INTERVAL);
        std::mem::take(&mut self.left_out)
    }
}

impl<K: Copy + PartialEq> RateLimits<K> {
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }

    /// Whether the line may go out now; if so, how many were left out before it.
    pub(crate) fn admit(&mut self, now: Duration, key: K) -> Option<u64> {
        let known = self.0.iter().position(|line| line.key == key);
        let index = known.unwrap_or_else(|| {
            self.0.push(Line::new(key));
            self.0.len() - 1
        });
        let line = &mut self.0[index];
        if line.turn() > now {
            line.left_out = line.left_out.saturating_add(1);
            return None;
        }
        Some(line.take_turn(now))
    }

    /// A line of which some were left out, and how many, if it is time to tell: the line has had a
    /// turn and nothing has used it for an [`INTERVAL`]. Telling uses it. At the end of time all
    /// are told.
    pub(crate) fn owed(&mut self, now: Duration) -> Option<(K, u64)> {
        let due = self.due().filter(|&due| due <= now)?;
        let line = self.0.iter_mut().find(|line| line.due() == Some(due))?;
        Some((line.key, line.take_turn(now)))
    }

    /// When [`owed`](Self::owed) has something to tell, as things are.
    pub(crate) fn due(&self) -> Option<Duration> {
        self.0.iter().filter_map(Line::due).min()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BURST_LEN: usize = BURST as usize;

    #[test]
    fn t131_a_burst_goes_out_then_one_per_interval_which_tells_what_was_left_out() {
        let mut limits = RateLimits::new();
        let now = Duration::from_secs(1);
        for _ in 0..BURST {
            assert_eq!(limits.admit(now, 'a'), Some(0));
        }
        for _ in 0..7 {
            assert_eq!(limits.admit(now, 'a'), None);
        }
        assert_eq!(limits.admit(now, 'b'), Some(0), "another line");
        let before = now + INTERVAL - Duration::from_nanos(1);
        assert_eq!(limits.admit(before, 'a'), None);
        assert_eq!(limits.admit(now + INTERVAL, 'a'), Some(8));
        assert_eq!(limits.admit(now + INTERVAL, 'a'), None);
    }

    #[test]
    fn t131_what_was_left_out_is_told_once_when_it_is_calm() {
        let mut limits = RateLimits::new();
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
    fn t131_a_burst_is_saved_again_while_it_is_calm() {
        let mut limits = RateLimits::new();
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

    /// What happens, and how many milliseconds after what happened before.
    fn events() -> impl Strategy<Value = Vec<(u64, Event)>> {
        let pause = prop_oneof![8 => 0_u64..3, 2 => 0_u64..3000, 1 => 0_u64..60_000];
        let event = prop_oneof![9 => (0_u8..3).prop_map(Event::Line), 1 => Just(Event::Tell)];
        prop::collection::vec((pause, event), 0..400)
    }

    /// Lines that went out, with the time; what they told, and how many were left out.
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
        fn t131_no_events_exceed_the_bound_and_every_one_is_told_or_counted(events in events()) {
            let mut limits = RateLimits::new();
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
                prop_assert!(limits.due().is_none() || logs.iter().any(|log| log.left_out > log.told));
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
