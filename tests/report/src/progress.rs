// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How far a long job is: a bar on a terminal, some lines elsewhere. All of it on standard error.

#![expect(clippy::print_stderr, reason = "the plain form of a bar")]

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar, which draws nothing where there is no terminal.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    start: Instant,
    /// Whether each quarter has a line of its own where there is no bar.
    quarters: bool,
}

impl Progress {
    /// Of a number of bytes. Elsewhere than on a terminal: a line for each quarter.
    #[must_use]
    pub fn of_bytes(total: u64) -> Self {
        Self {
            quarters: !stderr().is_terminal(),
            ..Self::new(
                total,
                "{bar:40} {bytes}/{total_bytes} {binary_bytes_per_sec}",
            )
        }
    }

    /// Of a number of runs, in phases. Elsewhere than on a terminal: a line for each phase.
    #[must_use]
    pub fn of_runs(total: usize) -> Self {
        Self::new(
            total as u64,
            "{prefix} {wide_bar} {pos}/{len} {elapsed} {msg:40}",
        )
    }

    fn new(total: u64, template: &str) -> Self {
        let target = ProgressDrawTarget::stderr_with_hz(10);
        let bar = ProgressBar::with_draw_target(Some(total), target);
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self {
            bar,
            start: Instant::now(),
            quarters: false,
        }
    }

    /// The phase that begins now.
    pub fn phase(&self, name: &str) {
        if stderr().is_terminal() {
            self.bar.set_prefix(name.to_owned());
        } else {
            eprintln!("{:>5.0} s  {name}", self.start.elapsed().as_secs_f64());
        }
    }

    /// The run that begins now.
    pub fn doing(&self, name: &str) {
        self.bar.set_message(name.to_owned());
    }

    /// This many more bytes or runs are done.
    pub fn advance(&self, count: u64) {
        let total = self.bar.length().unwrap_or_default();
        let quarter = || self.bar.position() * 4 / total.max(1);
        let before = quarter();
        self.bar.inc(count);
        let reached = quarter();
        if self.quarters && reached > before {
            eprintln!("{} % of all rounds", reached * 25);
        }
    }

    /// All is done: the bar goes.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// Does something that a person has to wait for: on a terminal with the time it takes, elsewhere
/// with a line.
pub fn step<T>(what: &str, work: impl FnOnce() -> T) -> T {
    if !stderr().is_terminal() {
        eprintln!("{what}");
        return work();
    }
    let bar = ProgressBar::new_spinner().with_message(what.to_owned());
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    let result = work();
    bar.finish_and_clear();
    result
}
