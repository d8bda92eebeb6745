// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::path::PathBuf;

use clap::Parser;

use crate::device::Named;
use crate::row::{self, Row};

/// Compare our devices with vhost-device-vsock, under a driver in this process that behaves like
/// Linux's driver
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask bench --native")]
pub(crate) struct Args {
    /// Run only rows whose name contains one of these texts, separated by commas
    #[arg(long, value_name = "TEXT", value_delimiter = ',')]
    rows: Vec<String>,

    /// The devices to compare, separated by commas
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "program,library,vhost-device-vsock"
    )]
    pub(crate) devices: Vec<Named>,

    /// The number of runs of each row on each device [default: 5, or 1 with --quick]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,

    /// Make short runs, which show that everything works but not how fast it is
    #[arg(long)]
    quick: bool,

    /// Pin all threads to one core: the guest's, the device's and the host component's
    #[arg(long)]
    pub(crate) one_core: bool,

    /// How long our devices poll for work before they sleep, in microseconds
    #[arg(long, value_name = "N")]
    pub(crate) poll_us: Option<u32>,

    /// Add our program of another revision of this repository as a device
    #[arg(long, value_name = "REV")]
    pub(crate) baseline: Option<String>,

    /// Measure only bulk transfers between two guests: directly, and by a relay between two devices
    #[arg(long)]
    pub(crate) siblings: bool,

    /// The directory for the JSON file and the charts
    #[arg(long, value_name = "DIR", default_value = "target/bench/native")]
    pub(crate) out: PathBuf,

    /// Write the results of the last run into docs/benchmarks.md and docs/pictures; measure nothing
    #[arg(long, conflicts_with_all = ["rows", "quick", "baseline", "list"])]
    pub(crate) publish: bool,

    /// List the names of the rows; measure nothing
    #[arg(long)]
    pub(crate) list: bool,

    /// Embed the library for a guest with this CID (the bench starts itself with this option)
    #[arg(long, value_name = "CID", requires = "directory", hide = true)]
    pub(crate) serve: Option<u32>,

    /// The directory for its socket
    #[arg(long, value_name = "DIR", hide = true)]
    pub(crate) directory: Option<PathBuf>,
}

impl Args {
    pub(crate) fn rounds(&self) -> usize {
        let usual = if self.quick { 1 } else { 5 };
        self.rounds.unwrap_or(usual).into()
    }

    pub(crate) fn selected_rows(&self) -> Vec<Row> {
        let mut rows = row::all(if self.quick { 50 } else { 1 });
        let is_wanted = |name: &str| self.rows.iter().any(|text| name.contains(text));
        rows.retain(|row| self.rows.is_empty() || is_wanted(&row.name));
        rows
    }
}
