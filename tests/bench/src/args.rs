// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use crate::runner::Effort;
use vsock_report::Place;

/// The default number of rounds: enough for a meaningful median.
const ROUNDS: usize = 7;
const QUICK_ROUNDS: usize = 3;
const RUN: Duration = Duration::from_millis(100);
const QUICK_RUN: Duration = Duration::from_millis(15);

/// Compare vsock-inner with sockets, pipes, channels and tokio's streams, in one run
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask bench")]
pub(crate) struct Args {
    /// Run only cells whose name (workload/case/row) contains TEXT, and their references
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) filter: String,

    /// The number of runs of each row; reliable figures need 7 or more [default: 7, or 3 with
    /// --quick]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,

    /// Make a few short runs, which show that everything works but not how fast it is
    #[arg(long)]
    quick: bool,

    /// Pin the two threads of a run to different cores, except in the workloads for one core
    #[arg(long)]
    apart: bool,

    /// Measure only the muxer, between a minimal guest and minimal streams: the cost of a packet
    #[arg(long)]
    pub(crate) muxer: bool,

    /// Compare with another revision of this repository, built and run in turn with this one
    #[arg(long, value_name = "REV")]
    pub(crate) baseline: Option<String>,

    /// The directory for the JSON file and the charts
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    pub(crate) out: PathBuf,

    /// Write the results of the last run into docs/benchmarks.md and docs/pictures; measure nothing
    #[arg(long, conflicts_with_all = ["filter", "muxer", "baseline", "list"])]
    pub(crate) publish: bool,

    /// List the names of all cells; measure nothing
    #[arg(long)]
    pub(crate) list: bool,

    /// Hold idle connections of ROW (the bench starts itself with this option)
    #[arg(long, value_name = "ROW", hide = true)]
    pub(crate) idle: Option<String>,

    /// The number of idle connections whose cost is measured
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub(crate) connections: u64,
}

impl Args {
    /// Returns how much to measure.
    pub(crate) fn effort(&self) -> Effort {
        let (rounds, run) = if self.quick {
            (QUICK_ROUNDS, QUICK_RUN)
        } else {
            (ROUNDS, RUN)
        };
        Effort {
            rounds: self.rounds.map_or(rounds, usize::from),
            run,
        }
    }

    /// Returns the arguments that make a bench measure the same in one round.
    pub(crate) fn for_one_round(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = ["--rounds", "1", "--filter"].map(Into::into).into();
        words.push((&self.filter).into());
        let flags = [(self.quick, "--quick"), (self.apart, "--apart")];
        words.extend(flags.iter().filter(|flag| flag.0).map(|flag| flag.1.into()));
        words
    }

    /// Returns the cores that the two threads of a run use.
    pub(crate) fn place(&self) -> Place {
        if self.apart {
            Place::Apart
        } else {
            Place::Free
        }
    }
}
