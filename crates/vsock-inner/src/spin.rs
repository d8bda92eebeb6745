// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Polling for a short while before sleeping.

use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use crate::sync::spin_loop;

/// So many spins in a row may be vain before they become rare.
const PATIENCE: u32 = 2;
/// Then one wait in so many spins, and after each vain one the number doubles ...
const RARE_FIRST: u32 = 16;
/// ... up to this.
const RARE_LAST: u32 = 256;
/// A poll of the clock for so many pauses.
const PAUSES_PER_GLANCE: u32 = 64;

/// Decides how long to poll, by how it went before.
///
/// Polling spares two system calls and the time of a wake-up if the other side is at work on another
/// processor. If it is not, polling only keeps it from its work; so after two vain attempts polling is
/// tried once in sixteen waits, then once in thirty-two, and so on. The budget itself never shrinks:
/// an attempt that is too short would tell nothing.
#[derive(Clone, Debug)]
pub(crate) struct Spinner {
    budget: Duration,
    /// Vain spins in a row.
    vain: u32,
    /// Waits to go without a spin.
    pass: u32,
}

impl Spinner {
    pub(crate) fn new(budget: Duration) -> Self {
        Self {
            budget,
            vain: 0,
            pass: 0,
        }
    }

    /// Polls `ready`, with so many pauses in between, until it holds or the budget is spent.
    pub(crate) fn spin(&mut self, pauses: u32, ready: impl Fn() -> bool) -> bool {
        if self.pass > 0 {
            self.pass -= 1;
            return false;
        }
        if self.budget.is_zero() || !others_can_run() {
            return false;
        }
        if poll(self.budget, pauses, ready) {
            self.vain = 0;
            return true;
        }
        self.vain += 1;
        if self.vain >= PATIENCE {
            let doublings = (self.vain - PATIENCE).min((RARE_LAST / RARE_FIRST).ilog2());
            self.vain = PATIENCE + doublings;
            self.pass = (RARE_FIRST << doublings) - 1;
        }
        false
    }
}

fn poll(budget: Duration, pauses: u32, ready: impl Fn() -> bool) -> bool {
    let start = Instant::now();
    let mut paused = 0;
    loop {
        for _ in 0..pauses {
            spin_loop();
        }
        if ready() {
            return true;
        }
        paused += pauses;
        if paused >= PAUSES_PER_GLANCE {
            paused = 0;
            if start.elapsed() >= budget {
                return false;
            }
        }
    }
}

/// Whether this process has more than one processor.
fn others_can_run() -> bool {
    static MANY: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *MANY.get_or_init(|| available_parallelism().is_ok_and(|processors| processors.get() > 1))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::cell::Cell;
    use std::time::Duration;

    use super::{RARE_FIRST, RARE_LAST, Spinner};

    /// How many of `waits` vain waits have polled at all.
    fn spins_in(spinner: &mut Spinner, waits: u32) -> usize {
        let polled = Cell::new(false);
        let spins = |_: &u32| {
            polled.set(false);
            spinner.spin(1, || {
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
    fn vain_spins_become_rare() {
        if !super::others_can_run() {
            return;
        }
        let mut spinner = Spinner::new(Duration::from_nanos(1));
        assert_eq!(spins_in(&mut spinner, 2), 2);
        assert_eq!(spins_in(&mut spinner, RARE_FIRST - 1), 0);
        assert_eq!(spins_in(&mut spinner, 1), 1);
        spins_in(&mut spinner, 4 * RARE_LAST);
        assert_eq!(
            spins_in(&mut spinner, 4 * RARE_LAST),
            4,
            "no rarer than the last step"
        );
        let mut woken = spinner.clone();
        while !woken.spin(1, || true) {}
        assert_eq!(
            spins_in(&mut woken, 2),
            2,
            "one success and it polls as at first"
        );
    }
}
