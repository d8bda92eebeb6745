// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What is being done now: on a terminal with the time it takes, elsewhere a line.

use std::io::{IsTerminal, stderr};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Does something that a person has to wait for.
pub(crate) fn step<T>(what: &str, work: impl FnOnce() -> T) -> T {
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
