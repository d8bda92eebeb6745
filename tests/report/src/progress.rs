// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Shows on standard error how far a long job is: a bar on a terminal, lines elsewhere.

#![expect(clippy::print_stderr, reason = "the plain form of a bar")]

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar, which draws nothing without a terminal.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    start: Instant,
    /// Whether each quarter gets a line if there is no bar.
    quarters: bool,
}

impl Progress {
    /// Returns the progress of a number of bytes. Without a terminal, each quarter gets a line.
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

    /// Returns the progress of a number of runs, in phases. Without a terminal, each phase gets a
    /// line.
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

    /// Begins a phase.
    pub fn phase(&self, name: &str) {
        if stderr().is_terminal() {
            self.bar.set_prefix(name.to_owned());
        } else {
            eprintln!("{:>5.0} s  {name}", self.start.elapsed().as_secs_f64());
        }
    }

    /// Shows the name of the run that begins.
    pub fn doing(&self, name: &str) {
        self.bar.set_message(name.to_owned());
    }

    /// Counts bytes or runs that are done.
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

    /// Removes the bar.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// Runs something that a person waits for. A terminal shows the time that it takes, anything else
/// gets a line.
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
