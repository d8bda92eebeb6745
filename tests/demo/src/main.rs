// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The main job: a file goes from a host component through the transport to an echo service behind
//! an event loop, and comes back; beside it the same over a Unix socket pair; and then with a muxer
//! and a simulated guest between, in which the echo service is.
//!
//! The file is held in memory and digested before and after, so that the times are the transport's.

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
use vsock_report::{Digest, Progress, largest_of_build, read};

use crate::way::Way;

/// Sends a file through the in-process transport and back, beside a Unix socket pair.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask demo")]
struct Args {
    /// The file to send; the largest file beside this program if none is named.
    file: Option<PathBuf>,
    /// How often each transport does the job; the table has the medians.
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
    let path = match &args.file {
        Some(path) => path.clone(),
        None => largest_of_build()?,
    };
    let bytes = read(&path)?;
    let sent = Digest::of(&bytes);
    println!("file      {}", path.display());
    println!("bytes     {}, there and back", bytes.len());
    println!(
        "way       host component -> stream -> echo service on an event loop -> stream -> host"
    );
    println!(
        "          and with a guest: host component -> stream -> muxer -> packets -> echo service"
    );

    let progress = Progress::of_bytes(bytes.len() as u64 * 4 * u64::from(args.rounds));
    let mut rows = Way::ALL.map(|way| (way, Vec::new()));
    for _ in 0..args.rounds {
        for (way, outcomes) in &mut rows {
            let (outcome, back) = job::run(*way, &bytes, &progress).context(way.name())?;
            sent.check(&back).context(way.name())?;
            outcomes.push(outcome);
        }
    }
    progress.finish();
    println!("SHA-256   {sent}, the same on both sides in every round\n");
    print!("{}", table::render(bytes.len(), &rows));
    Ok(())
}
