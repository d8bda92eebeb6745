// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The main job: bytes go from a host component through the transport to an echo service on an
//! event loop, and come back; then the same over a Unix socket pair, for comparison; and then with
//! a muxer and a simulated guest in between, with the echo service in the guest.

#![forbid(unsafe_code)]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for people"
)]

mod job;
mod rig;
mod service;
mod table;
mod way;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use vsock_report::{CommonDigest, Payload, Progress};

use crate::way::Way;

/// Send a file to an echo service and back: through the in-process transport, through a Unix socket
/// pair, and to a simulated guest
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask demo", max_term_width = 100)]
struct Args {
    /// The file to send [default: 64 MiB of random bytes]
    file: Option<PathBuf>,
    /// How many times to send the file each way; the table shows the medians
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> anyhow::Result<()> {
    let payload = Payload::new(args.file.as_deref())?;
    println!(
        "Sending {payload} to an echo service and back, in 4 ways, each {} times.",
        args.rounds
    );
    let ways = Way::ALL.len() as u64;
    let progress = Progress::of_bytes(payload.len() * ways * u64::from(args.rounds));
    let mut rows = Way::ALL.map(|way| (way, Vec::new()));
    let mut digest = CommonDigest::default();
    for _ in 0..args.rounds {
        for (way, outcomes) in &mut rows {
            let outcome = job::run(*way, &payload, &progress).context(way.name())?;
            digest.add(outcome.trip.digest)?;
            outcomes.push(outcome);
        }
    }
    progress.finish();
    println!("{digest}\n");
    print!("{}", table::render(payload.len(), &rows));
    Ok(())
}
