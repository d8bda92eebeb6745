// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How far the bench is: a bar on a terminal, a line per round elsewhere.

use std::io::{self, IsTerminal};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};

/// How far the bench is, on standard error.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    start: Instant,
}

impl Progress {
    /// Of `runs` runs.
    #[must_use]
    pub fn new(runs: usize) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let template = "{prefix} {wide_bar} {pos}/{len} {elapsed} {msg:40}";
            let style = ProgressStyle::with_template(template);
            let bar = ProgressBar::new(runs as u64);
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        Self {
            bar,
            start: Instant::now(),
        }
    }

    /// What begins now.
    #[expect(clippy::print_stderr, reason = "the plain form of the bar")]
    pub fn phase(&self, name: &str) {
        match &self.bar {
            Some(bar) => bar.set_prefix(name.to_owned()),
            None => eprintln!("{:>5.0} s  {name}", self.start.elapsed().as_secs_f64()),
        }
    }

    /// The run that begins now.
    pub fn doing(&self, name: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(name.to_owned());
        }
    }

    /// A run has ended.
    pub fn step(&self) {
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
    }

    /// All runs have ended.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
