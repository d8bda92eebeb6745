// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Polling for a short while before sleeping.
//!
//! A [`Spinner`] polls only while that pays off: after repeated misses it skips most of its turns
//! ([`Backoff`]). A stream too young to have a history borrows that of its thread
//! ([`ThreadBackoff`]).

use std::cell::Cell;
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::sync::spin_loop;

/// After this many unsuccessful spins in a row, spin less often.
const MISSES: u32 = 2;
/// Then spin once in this many waits. Each further unsuccessful spin doubles the number ...
const BACKOFF_FIRST: u32 = 16;
/// ... up to this. An unsuccessful spin of 50 us then costs 0.2 us per wait, while sleeping and
/// waking take several. A peer that becomes fast is noticed within this many waits.
const BACKOFF_LAST: u32 = 256;
/// Number of pauses between two checks.
const PAUSES: u32 = 4;
/// In a hurry, the clock is read once in this many checks.
const TURNS_PER_GLANCE: u32 = 16;
/// The interval between two checks at the calm pace: at first, and at most.
const CALM: Range<Duration> = Duration::from_nanos(400)..Duration::from_nanos(3200);

/// How often a polling side checks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Pace {
    /// Constantly: the event is expected immediately.
    Hurry,
    /// Rarely. Each check takes the cache line away from the other side, and finding a little data
    /// early gains little. The more data arrives, the longer the interval.
    Calm,
}

/// The outcome of one period of polling.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Polled {
    Found,
    Missed,
}

/// Decides whether and how long to poll, from previous results.
///
/// If the other side is running on another processor, polling saves two system calls and the
/// latency of a wake-up. If it is not, polling only delays it. So after two unsuccessful attempts,
/// only one wait in sixteen polls, then one in thirty-two, and so on. The budget itself never
/// shrinks, because an attempt that is too short would prove nothing. With a single processor every
/// attempt fails, which soon costs little. The number of processors is not consulted, because a
/// thread may be pinned to one of many.
#[derive(Clone, Debug)]
pub(crate) struct Spinner {
    budget: Duration,
    experience: Experience,
    /// The current interval between two checks at the calm pace.
    calm: Duration,
}

/// Where the results are remembered, and what they were.
#[derive(Clone, Copy, Debug)]
enum Experience {
    /// For waits of a stream where polling has not succeeded yet: the thread's history is used. A
    /// stream that serves a single request is too short-lived to have its own.
    Unproven,
    /// For waits of a stream where polling has succeeded: its own history.
    Proven(Backoff),
    /// For a stream that is one of many whose descriptors a thread may poll: both its own history
    /// and the thread's. A loop with a thousand streams should not have to learn this for each.
    AmongMany(Backoff),
}

impl Spinner {
    /// For a side that would otherwise sleep.
    pub(crate) const fn new(budget: Duration) -> Self {
        Self::with(budget, Experience::Unproven)
    }

    /// For a side whose descriptor is polled among others.
    pub(crate) const fn among_many(budget: Duration) -> Self {
        Self::with(budget, Experience::AmongMany(Backoff::NONE))
    }

    const fn with(budget: Duration, experience: Experience) -> Self {
        Self {
            budget,
            experience,
            calm: CALM.start,
        }
    }

    /// Polls `ready` at the given pace until it holds, the budget is spent, or the caller's time is
    /// up. Returns whether it held. May skip polling altogether.
    pub(crate) fn spin(
        &mut self,
        left: Option<Duration>,
        pace: Pace,
        ready: impl Fn() -> bool,
    ) -> bool {
        let budget = left.map_or(self.budget, |left| left.min(self.budget));
        if budget.is_zero() || self.experience.skips() {
            return false;
        }
        let polled = match pace {
            Pace::Hurry => hurry(budget, ready),
            Pace::Calm => self.calm(budget, ready),
        };
        self.experience.learn(polled);
        polled == Polled::Found
    }

    /// Checks at intervals. If the first check succeeds, data arrives quickly and the next interval
    /// can be longer; if only a later one succeeds, the next interval is shorter.
    fn calm(&mut self, budget: Duration, ready: impl Fn() -> bool) -> Polled {
        let start = Instant::now();
        let mut next = self.calm;
        loop {
            let elapsed = pause_until(start, next.min(budget));
            // Check once per interval. In between, the other side has its cache line to itself.
            if ready() {
                self.calm = if next == self.calm {
                    (self.calm * 2).min(CALM.end)
                } else {
                    (self.calm / 2).max(CALM.start)
                };
                return Polled::Found;
            }
            if elapsed >= budget {
                return Polled::Missed;
            }
            next = elapsed + self.calm;
        }
    }
}

impl Experience {
    /// Whether this wait is one of those that skip polling. Counts it as skipped.
    fn skips(&mut self) -> bool {
        match self {
            Self::Unproven => ThreadBackoff::Waits.skips(),
            Self::Proven(own) => own.skips(),
            Self::AmongMany(own) => own.skips() || ThreadBackoff::Looks.skips(),
        }
    }

    fn learn(&mut self, polled: Polled) {
        match self {
            Self::Unproven => {
                ThreadBackoff::Waits.learn(polled);
                if polled == Polled::Found {
                    *self = Self::Proven(Backoff::NONE);
                }
            }
            Self::Proven(own) => own.learn(polled),
            Self::AmongMany(own) => {
                own.learn(polled);
                ThreadBackoff::Looks.learn(polled);
            }
        }
    }
}

/// Tracks unsuccessful spins, and how many waits still skip polling.
#[derive(Clone, Copy, Debug)]
struct Backoff {
    /// Unsuccessful spins in a row.
    misses: u32,
    /// Number of waits left that skip polling.
    skips: u32,
}

impl Backoff {
    const NONE: Self = Self {
        misses: 0,
        skips: 0,
    };

    fn skips(&mut self) -> bool {
        let skips = self.skips > 0;
        self.skips = self.skips.saturating_sub(1);
        skips
    }

    fn learn(&mut self, polled: Polled) {
        if polled == Polled::Found {
            self.misses = 0;
            return;
        }
        self.misses += 1;
        // Each further miss doubles the distance between spins, up to `BACKOFF_LAST` waits.
        if self.misses >= MISSES {
            let doublings = (self.misses - MISSES).min((BACKOFF_LAST / BACKOFF_FIRST).ilog2());
            self.misses = MISSES + doublings;
            self.skips = (BACKOFF_FIRST << doublings) - 1;
        }
    }
}

/// The history of a thread, over all its streams of a kind.
#[derive(Clone, Copy)]
enum ThreadBackoff {
    Looks,
    Waits,
}

thread_local! {
    static LOOKS: Cell<Backoff> = const { Cell::new(Backoff::NONE) };
    static WAITS: Cell<Backoff> = const { Cell::new(Backoff::NONE) };
}

impl ThreadBackoff {
    fn skips(self) -> bool {
        self.change(Backoff::skips)
    }

    fn learn(self, polled: Polled) {
        self.change(|backoff| backoff.learn(polled));
    }

    fn change<T>(self, change: impl FnOnce(&mut Backoff) -> T) -> T {
        let cell = match self {
            Self::Looks => &LOOKS,
            Self::Waits => &WAITS,
        };
        let mut backoff = cell.get();
        let result = change(&mut backoff);
        cell.set(backoff);
        result
    }
}

fn hurry(budget: Duration, ready: impl Fn() -> bool) -> Polled {
    let start = Instant::now();
    loop {
        for _ in 0..TURNS_PER_GLANCE {
            pause();
            if ready() {
                return Polled::Found;
            }
        }
        if start.elapsed() >= budget {
            return Polled::Missed;
        }
    }
}

/// Pauses until `moment` after `start`. Returns the time elapsed since `start`.
fn pause_until(start: Instant, moment: Duration) -> Duration {
    loop {
        pause();
        let elapsed = start.elapsed();
        if elapsed >= moment {
            return elapsed;
        }
    }
}

fn pause() {
    for _ in 0..PAUSES {
        spin_loop();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::cell::Cell;
    use std::time::Duration;

    use super::{BACKOFF_FIRST, BACKOFF_LAST, Pace, Spinner};

    /// How many of `waits` unsuccessful waits have polled at all.
    fn spins_in(spinner: &mut Spinner, waits: u32) -> usize {
        let polled = Cell::new(false);
        let spins = |_: &u32| {
            polled.set(false);
            spinner.spin(None, Pace::Hurry, || {
                polled.set(true);
                false
            });
            polled.get()
        };
        (0..waits).filter(spins).count()
    }

    #[test]
    fn a_budget_of_zero_never_polls() {
        assert_eq!(spins_in(&mut Spinner::new(Duration::ZERO), 100), 0);
    }

    #[test]
    fn unsuccessful_polls_of_many_streams_make_polling_rare_for_their_thread() {
        let polls = |stream: &&Spinner| {
            let polled = Cell::new(false);
            let mut stream = Spinner::clone(stream);
            stream.spin(None, Pace::Hurry, || {
                polled.set(true);
                false
            });
            polled.get()
        };
        let streams = vec![Spinner::among_many(Duration::from_nanos(1)); 1000];
        let spins = streams.iter().filter(polls).count();
        assert!(
            (2..10).contains(&spins),
            "{spins}: one for each stream would be 1000"
        );
        let found = |_: &u32| {
            let mut fresh = Spinner::among_many(Duration::from_nanos(1));
            fresh.spin(None, Pace::Hurry, || true)
        };
        assert!((0..BACKOFF_LAST).any(|at| found(&at)));
        assert_eq!(
            (0..100).filter(found).count(),
            100,
            "after one success it polls as at first"
        );
    }

    #[test]
    fn unsuccessful_waits_of_successive_new_streams_make_polling_rare_for_their_thread() {
        let polls = |_: &u32| spins_in(&mut Spinner::new(Duration::from_nanos(1)), 1) == 1;
        let spins = (0..1000).filter(polls).count();
        assert!(
            (2..10).contains(&spins),
            "{spins}: one for each stream would be 1000"
        );
    }

    #[test]
    fn a_stream_where_polling_has_succeeded_ignores_the_results_of_others() {
        let mut useful = Spinner::new(Duration::from_nanos(1));
        assert!(useful.spin(None, Pace::Hurry, || true));
        spins_in(&mut Spinner::new(Duration::from_nanos(1)), 1000);
        assert!(useful.spin(None, Pace::Hurry, || true));
    }

    #[test]
    fn unsuccessful_spins_make_polling_rare() {
        let mut spinner = Spinner::new(Duration::from_nanos(1));
        assert_eq!(spins_in(&mut spinner, 2), 2);
        assert_eq!(spins_in(&mut spinner, BACKOFF_FIRST - 1), 0);
        assert_eq!(spins_in(&mut spinner, 1), 1);
        spins_in(&mut spinner, 4 * BACKOFF_LAST);
        assert_eq!(
            spins_in(&mut spinner, 4 * BACKOFF_LAST),
            4,
            "not rarer than the last step"
        );
        // In numbers: half a per cent of the waits, and a peer that becomes fast is noticed soon.
        let share = spins_in(&mut spinner, 10_000);
        assert!(share <= 50, "{share} unsuccessful spins in 10,000 waits");
        while spins_in(&mut spinner, 1) == 0 {}
        let mut quick = spinner.clone();
        let noticed = (1..).find(|_| quick.spin(None, Pace::Hurry, || true));
        assert!(noticed <= Some(300), "{noticed:?} waits");
        let mut woken = spinner.clone();
        while !woken.spin(None, Pace::Hurry, || true) {}
        assert_eq!(
            spins_in(&mut woken, 2),
            2,
            "after one success it polls as at first"
        );
    }
}
