// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Polling for a short while before sleeping.

use std::cell::Cell;
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::sync::spin_loop;

/// After this number of unsuccessful spins in a row, spin less often.
const MISSES: u32 = 2;
/// Then one wait in this many spins, and each unsuccessful spin doubles the number ...
const BACKOFF_FIRST: u32 = 16;
/// ... up to this. At 50 us for an unsuccessful spin that is 0.2 us for each wait, where sleeping
/// and waking take several; and a peer that becomes quick is found within this many waits.
const BACKOFF_LAST: u32 = 256;
/// Pauses between two turns of a poll.
const PAUSES: u32 = 4;
/// In a hurry, the clock is read once in this many turns.
const TURNS_PER_GLANCE: u32 = 16;
/// The times between two looks without hurry, at first and at most.
const CALM: Range<Duration> = Duration::from_nanos(400)..Duration::from_nanos(3200);

/// How often a side that polls looks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Pace {
    /// All the time: what it waits for will come immediately.
    Hurry,
    /// Seldom: each look takes the other side's cache line away from it, and what is found sooner
    /// is little. The more there is to find, the more seldom.
    Calm,
}

/// What a spell of polling came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Polled {
    Found,
    Missed,
}

/// Decides how long to poll, by how it went before.
///
/// Polling spares two system calls and the time of a wake-up if the other side is at work on
/// another processor. If it is not, polling only keeps it from its work; so after two unsuccessful
/// attempts polling is tried once in sixteen waits, then once in thirty-two, and so on. The budget
/// itself never shrinks: an attempt that is too short would tell nothing. On a machine with one
/// processor no attempt succeeds, which soon costs little; how many there are is not asked, because
/// a thread may be tied to one of many.
#[derive(Clone, Debug)]
pub(crate) struct Spinner {
    budget: Duration,
    experience: Experience,
    /// The time between two looks without hurry.
    calm: Duration,
}

/// How it went before: where, and what has come of it.
#[derive(Clone, Copy, Debug)]
enum Experience {
    /// At waits of streams where polling has never been of use: the thread's history counts
    /// instead. A stream that lives for one request is too short to have a history of its own.
    Unproven,
    /// At waits of one stream, since polling has been of use there.
    Proven(Backoff),
    /// At looks of one stream among the many that a thread may poll by their descriptors: the
    /// thread's counts, too. A loop with a thousand of them has better things to do than to learn
    /// it anew of each.
    AmongMany(Backoff),
}

impl Spinner {
    /// For a side that would sleep otherwise.
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

    /// Polls `ready` at the given pace, until it holds or the budget is spent, or what is left of
    /// the caller's time.
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

    /// A first look that finds something says that there is much to find: the next one may come
    /// later. A later one says that there is little.
    fn calm(&mut self, budget: Duration, ready: impl Fn() -> bool) -> Polled {
        let start = Instant::now();
        let mut next = self.calm;
        loop {
            let elapsed = pause_until(start, next.min(budget));
            // One look for each interval: in between the other side has its cache line to itself.
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
    /// Whether this wait is one of those without a spin.
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

/// How many waits go without a spin.
#[derive(Clone, Copy, Debug)]
struct Backoff {
    /// Unsuccessful spins in a row.
    misses: u32,
    /// Waits to go without a spin.
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
        if self.misses >= MISSES {
            let doublings = (self.misses - MISSES).min((BACKOFF_LAST / BACKOFF_FIRST).ilog2());
            self.misses = MISSES + doublings;
            self.skips = (BACKOFF_FIRST << doublings) - 1;
        }
    }
}

/// What a thread has learnt at all streams of a kind.
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

/// Returns how long after `start` it is then.
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

    /// How many of `waits` fruitless waits have polled at all.
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
    fn vain_spins_at_many_streams_become_rare_for_their_thread() {
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
            "{spins}: one for each would be 1000"
        );
        let found = |_: &u32| {
            let mut fresh = Spinner::among_many(Duration::from_nanos(1));
            fresh.spin(None, Pace::Hurry, || true)
        };
        assert!((0..BACKOFF_LAST).any(|at| found(&at)));
        assert_eq!(
            (0..100).filter(found).count(),
            100,
            "one success and it polls as at first"
        );
    }

    #[test]
    fn vain_waits_at_one_new_stream_after_the_other_become_rare_for_their_thread() {
        let polls = |_: &u32| spins_in(&mut Spinner::new(Duration::from_nanos(1)), 1) == 1;
        let spins = (0..1000).filter(polls).count();
        assert!(
            (2..10).contains(&spins),
            "{spins}: one for each would be 1000"
        );
    }

    #[test]
    fn a_stream_at_which_polling_was_of_use_goes_on_however_it_goes_at_others() {
        let mut useful = Spinner::new(Duration::from_nanos(1));
        assert!(useful.spin(None, Pace::Hurry, || true));
        spins_in(&mut Spinner::new(Duration::from_nanos(1)), 1000);
        assert!(useful.spin(None, Pace::Hurry, || true));
    }

    #[test]
    fn vain_spins_become_rare() {
        let mut spinner = Spinner::new(Duration::from_nanos(1));
        assert_eq!(spins_in(&mut spinner, 2), 2);
        assert_eq!(spins_in(&mut spinner, BACKOFF_FIRST - 1), 0);
        assert_eq!(spins_in(&mut spinner, 1), 1);
        spins_in(&mut spinner, 4 * BACKOFF_LAST);
        assert_eq!(
            spins_in(&mut spinner, 4 * BACKOFF_LAST),
            4,
            "no rarer than the last step"
        );
        // As figures: half a per cent of the waits, and a peer that has become quick is noticed
        // soon.
        let share = spins_in(&mut spinner, 10_000);
        assert!(share <= 50, "{share} fruitless spins in 10,000 waits");
        while spins_in(&mut spinner, 1) == 0 {}
        let mut quick = spinner.clone();
        let noticed = (1..).find(|_| quick.spin(None, Pace::Hurry, || true));
        assert!(noticed <= Some(300), "{noticed:?} waits");
        let mut woken = spinner.clone();
        while !woken.spin(None, Pace::Hurry, || true) {}
        assert_eq!(
            spins_in(&mut woken, 2),
            2,
            "one success and it polls as at first"
        );
    }
}
