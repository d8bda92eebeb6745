// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The code that benches, demos and the guest suite share.
//!
//! It shows progress, tables and charts, compares figures with their aims, and writes them into the
//! documentation. It places threads, builds other revisions, and ends a bench that hangs. It makes
//! the file that the demos send, and measures what a job costs without disturbing it. A quantity
//! that cannot be counted is an error with its cause, never a number.

#![forbid(unsafe_code)]

pub mod chart;
mod page;
mod payload;
mod place;
mod process;
mod progress;
mod revision;
mod spread;
mod system_calls;
mod table;
mod thread;
mod trip;
mod verdict;
mod watchdog;

use std::path::Path;
use std::{fs, io};

use anyhow::Context;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

pub use page::{DOCS, publish};
pub use payload::Payload;
pub use place::{Place, Side, allowed_cores};
pub use process::{Usage, open_descriptors, resident_bytes, usage};
pub use progress::{Progress, step};
pub use revision::Revision;
pub use spread::{Spread, median};
pub use system_calls::{SystemCallCounter, SystemCallError};
pub use table::{GroupedTable, Table, digits, empty_table};
pub use thread::{thread_processor_time, thread_switches};
pub use trip::{CommonDigest, Digest, Trip, expect_end, there_and_back};
pub use verdict::{Verdict, figures};
pub use watchdog::Watchdog;

/// Returns the processor's name, as the kernel reports it.
#[must_use]
pub fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let mut lines = text.lines();
    let name = lines.find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or("unknown processor", |(_, name)| name.trim())
        .to_owned()
}

/// Returns the kernel's release.
#[must_use]
pub fn kernel() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    match release.trim() {
        "" => "unknown kernel".to_owned(),
        release => format!("Linux {release}"),
    }
}

/// Writes the results and charts of a bench, each by the name of its file.
///
/// Returns a line for a person that says where they are.
///
/// # Errors
///
/// The directory cannot be created or written to.
pub fn keep<'a>(
    directory: &Path,
    file: &str,
    json: &[u8],
    charts: impl IntoIterator<Item = (&'a str, String)>,
) -> anyhow::Result<String> {
    let cannot = || format!("cannot write to {}", directory.display());
    fs::create_dir_all(directory).with_context(cannot)?;
    fs::write(directory.join(file), json).with_context(cannot)?;
    for (name, svg) in charts {
        fs::write(directory.join(name).with_extension("svg"), svg).with_context(cannot)?;
    }
    Ok(format!(
        "results: {}; charts: {}/*.svg",
        directory.join(file).display(),
        directory.display()
    ))
}

/// Raises the limit of open descriptors to `wanted`, or as far as the process is permitted to.
///
/// # Errors
///
/// The operating system's error.
pub fn allow_descriptors(wanted: u64) -> io::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft >= wanted || setrlimit(Resource::RLIMIT_NOFILE, wanted, hard.max(wanted)).is_ok() {
        return Ok(());
    }
    Ok(setrlimit(Resource::RLIMIT_NOFILE, hard.min(wanted), hard)?)
}
