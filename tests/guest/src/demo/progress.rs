// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Progress: a bar on a terminal, elsewhere a line for each quarter.

use std::cell::Cell;
use std::io::{IsTerminal, stderr};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

pub(crate) struct Progress {
    bar: ProgressBar,
    total: u64,
    done: Cell<u64>,
    plain: bool,
}

impl Progress {
    pub(crate) fn new(total: u64) -> Self {
        let bar =
            ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(10));
        let template = "{bar:40} {bytes}/{total_bytes} {binary_bytes_per_sec}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self {
            bar,
            total,
            done: Cell::new(0),
            plain: !stderr().is_terminal(),
        }
    }

    pub(crate) fn advance(&self, bytes: u64) {
        let before = self.done.get();
        self.done.set(before + bytes);
        if !self.plain {
            self.bar.inc(bytes);
            return;
        }
        let quarter = |done: u64| done * 4 / self.total.max(1);
        let reached = quarter(before + bytes);
        if reached > quarter(before) {
            eprintln!("{} % of all rounds", reached * 25);
        }
    }

    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
