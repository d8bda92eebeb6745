// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::path::PathBuf;

use clap::Parser;

use crate::device::Named;
use crate::row::{self, Row};

/// Compares our devices with vhost-device-vsock, under a Linux-like driver in this process
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench --native")]
pub(crate) struct Args {
    /// Run only the rows whose names contain one of these, separated by commas
    #[arg(long, value_name = "TEXT", value_delimiter = ',')]
    rows: Vec<String>,

    /// The devices to measure, separated by commas
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "program,library,peer"
    )]
    pub(crate) devices: Vec<Named>,

    /// Runs of each row on each device [default: 5, or 1 with --quick]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,

    /// Make short runs, which show that everything works but not how fast it is
    #[arg(long)]
    quick: bool,

    /// Run all threads on one core: the guest's, the device's and the host component's
    #[arg(long)]
    pub(crate) one_core: bool,

    /// How long our devices poll before they sleep, in microseconds
    #[arg(long, value_name = "N")]
    pub(crate) poll_us: Option<u32>,

    /// Also measure our program as of another revision of this repository
    #[arg(long, value_name = "REV")]
    pub(crate) baseline: Option<String>,

    /// Only bulk between two guests: directly, and by a relay between two devices
    #[arg(long)]
    pub(crate) siblings: bool,

    /// The directory for the JSON file and the charts
    #[arg(long, value_name = "DIR", default_value = "target/bench/native")]
    pub(crate) out: PathBuf,

    /// List the names of the rows without measuring
    #[arg(long)]
    pub(crate) list: bool,

    /// Embed the library for a guest with this CID (internal: the bench starts itself with it)
    #[arg(long, value_name = "CID", requires = "directory", hide = true)]
    pub(crate) serve: Option<u32>,

    /// The directory of the embedded device's socket
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
