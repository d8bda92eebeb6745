// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the benches, the demos and the guest suite have in common: progress, tables, charts, figures to reach;
//! where a bench runs, what it is compared with, and what ends it; and the file that the demos send.

#![forbid(unsafe_code)]

pub mod chart;
mod payload;
mod place;
mod progress;
mod revision;
mod spread;
mod table;
mod verdict;
mod watchdog;

use std::fs;

pub use payload::{Digest, largest_of_build, read, receive, send};
pub use place::{Place, Side, allowed_cores};
pub use progress::{Progress, step};
pub use revision::Revision;
pub use spread::{Spread, median};
pub use table::{Table, digits, empty_table};
pub use verdict::{Verdict, figures};
pub use watchdog::Watchdog;

/// The processor, by the name it gives itself.
#[must_use]
pub fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let mut lines = text.lines();
    let name = lines.find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or("unknown processor", |(_, name)| name.trim())
        .to_owned()
}

/// The kernel's release.
#[must_use]
pub fn kernel() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    match release.trim() {
        "" => "unknown kernel".to_owned(),
        release => format!("Linux {release}"),
    }
}
