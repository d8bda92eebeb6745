// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use crate::runner::Effort;
use vsock_report::Place;

/// Rounds where nothing else is said: enough for a median that means something.
const ROUNDS: usize = 7;
const QUICK_ROUNDS: usize = 3;
const RUN: Duration = Duration::from_millis(100);
const QUICK_RUN: Duration = Duration::from_millis(15);

/// Measures vsock-inner beside its peers, all in the same run.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench")]
pub(crate) struct Args {
    /// Only cells whose name (workload/case/row) contains TEXT; their reference runs with them
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) filter: String,

    /// Runs of each row; figures to rely on take 7 or more
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,

    /// Short runs and few of them: shows that all works, not how fast it is
    #[arg(long)]
    quick: bool,

    /// Pin the two threads of a run to different cores, but for what belongs on one core
    #[arg(long)]
    apart: bool,

    /// Only the muxer, between a bare guest and bare streams: the cost of a packet
    #[arg(long)]
    pub(crate) muxer: bool,

    /// Compare with another revision of this repository, built and run in turn with this one
    #[arg(long, value_name = "REV")]
    pub(crate) baseline: Option<String>,

    /// Where the JSON file and the charts go
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    pub(crate) out: PathBuf,

    /// List the names of all cells and measure nothing
    #[arg(long)]
    pub(crate) list: bool,

    /// Idle connections of a row, held by a process of its own (the bench calls itself)
    #[arg(long, value_name = "ROW", hide = true)]
    pub(crate) idle: Option<String>,

    /// How many idle connections
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub(crate) connections: u64,
}

impl Args {
    /// How much to measure.
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

    /// The words that make a bench measure the same, once.
    pub(crate) fn for_one_round(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = ["--rounds", "1", "--filter"].map(Into::into).into();
        words.push((&self.filter).into());
        let flags = [(self.quick, "--quick"), (self.apart, "--apart")];
        words.extend(flags.iter().filter(|flag| flag.0).map(|flag| flag.1.into()));
        words
    }

    /// Where the two threads of a run may run.
    pub(crate) fn place(&self) -> Place {
        if self.apart {
            Place::Apart
        } else {
            Place::Free
        }
    }
}
