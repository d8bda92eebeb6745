// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Compares devices without an emulator. This process contains a front-end and a Linux-like driver,
//! another process contains the device, and they use real system calls.
//!
//! Each *row* is a workload. In each round, every *device* runs the row right after the previous
//! one, and ratios are taken within the round. The guest is one thread that does not spin: it
//! sleeps on the queues' call descriptors, as a processor halts until an interrupt arrives.

#![forbid(unsafe_code)]
#![expect(clippy::print_stderr, reason = "a program for people")]

mod aims;
mod args;
mod clock;
mod credit;
mod device;
mod driver;
mod frontend;
mod guest;
mod halt;
mod host;
mod job;
mod latency;
mod pattern;
mod queue;
mod report;
mod results;
mod row;
mod shape;
mod siblings;
mod work;

use std::fs::File;
use std::io::{self, BufReader, Write};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use vsock_guest::place::Place as Repository;
use vsock_report::{
    DOCS, Place, Progress, Revision, Side, Watchdog, allow_descriptors, allowed_cores, keep,
    kernel, processor,
};

use crate::args::Args;
use crate::device::{BASELINE, Contender, Machine, VHOST_DEVICE_VSOCK};
use crate::results::{Cell, Results, Sample};
use crate::row::Row;
use crate::shape::Shape;

/// The version of the JSON file's format.
const SCHEMA: u32 = 3;
/// More than the largest row needs, which takes one or two descriptors for each connection.
const DESCRIPTORS: u64 = 1 << 16;
/// The name of the file with all measurements.
const RESULTS_FILE: &str = "native.json";

fn main() -> Result<()> {
    let args = Args::parse();
    if let (Some(cid), Some(directory)) = (args.serve, &args.directory) {
        return device::embed(cid, directory, args.poll_us);
    }
    let rows = args.selected_rows();
    if args.publish {
        return publish(&args.out, &rows);
    }
    let mut out = io::stdout().lock();
    if args.list {
        for row in &rows {
            writeln!(out, "{}", row.name)?;
        }
        return Ok(());
    }
    ensure!(
        !rows.is_empty(),
        "no row has that text in its name; --list shows all rows"
    );
    if args.one_core {
        Place::OneCore.take(Side::Left)?;
    }
    allow_descriptors(DESCRIPTORS)?;
    if args.siblings {
        return siblings::measure(args.rounds(), &mut out);
    }
    let revision = args
        .baseline
        .as_deref()
        .map(|name| Revision::find(name, &args.out.join("baseline")))
        .transpose()?;
    let contenders = contenders(&args, revision.as_ref())?;
    let reference = revision.as_ref().map_or(VHOST_DEVICE_VSOCK, |_| BASELINE);
    let mut results = Results {
        schema: SCHEMA,
        processor: processor(),
        kernel: kernel(),
        place: place(&args)?,
        guest: Shape::USUAL,
        reference: reference.to_owned(),
        baseline: revision.map(|revision| revision.commit().to_owned()),
        cells: Vec::new(),
    };
    measure(&args, &rows, &contenders, &mut results)?;
    write!(out, "{}", report::text(&results, &rows))?;
    let json = serde_json::to_vec_pretty(&results)?;
    let charts = report::charts(&results, &rows);
    let kept = keep(&args.out, RESULTS_FILE, &json, charts)?;
    writeln!(out, "\n{kept}")?;
    for contender in contenders.iter().filter(|contender| contender.is_ours()) {
        let is_own = |cell: &&Cell| cell.device == contender.name;
        let mut own = results.cells.iter().filter(is_own);
        if own.any(|cell| cell.failures() > 0) {
            bail!("the device {} failed", contender.name);
        }
    }
    Ok(())
}

/// Writes the results of the last run into the documentation.
fn publish(kept: &Path, rows: &[Row]) -> Result<()> {
    let file = kept.join(RESULTS_FILE);
    let open = File::open(&file);
    let open =
        open.with_context(|| format!("cannot read {}: run the bench first", file.display()))?;
    let results: Results = serde_json::from_reader(BufReader::new(open))?;
    let written = report::publish(&results, rows, Path::new(DOCS))?;
    writeln!(io::stdout(), "{written}")?;
    Ok(())
}

/// Returns where the threads run, as the report says it.
fn place(args: &Args) -> Result<String> {
    Ok(if args.one_core {
        "all threads on one core".to_owned()
    } else {
        format!("{} cores", allowed_cores()?.len())
    })
}

fn contenders(args: &Args, revision: Option<&Revision>) -> Result<Vec<Contender>> {
    let repository = Repository::new()?;
    let named = args.devices.iter();
    let named = named.map(|named| Contender::new(*named, &repository, args.poll_us));
    named.chain(revision.map(Contender::baseline)).collect()
}

fn measure(
    args: &Args,
    rows: &[Row],
    contenders: &[Contender],
    results: &mut Results,
) -> Result<()> {
    let watchdog = Watchdog::start();
    let rounds = args.rounds();
    let progress = Progress::of_runs(rounds * rows.len() * contenders.len());
    for round in 0..rounds {
        progress.phase(&format!("round {} of {rounds}", round + 1));
        let mut machines: Vec<Option<Machine>> = contenders.iter().map(|_| None).collect();
        for row in rows {
            for turn in 0..contenders.len() {
                // Rotate the order, so that the first device of one round is the last of another.
                let index = (turn + round) % contenders.len();
                let contender = &contenders[index];
                let name = format!("{}: {}", contender.name, row.name);
                progress.doing(&name);
                watchdog.doing(name.clone());
                let sample = one(row, contender, &mut machines[index]);
                if let Err(error) = &sample {
                    eprintln!("{name}: {error:#}");
                    machines[index] = None;
                }
                results.add(&row.name, contender.name, sample.ok());
                progress.advance(1);
            }
        }
    }
    progress.finish();
    Ok(())
}

/// Runs a row once, on the round's shared device or on one of its own.
fn one(row: &Row, contender: &Contender, shared: &mut Option<Machine>) -> Result<Sample> {
    let mut own = None;
    let place = if row.is_on_shared_device() {
        shared
    } else {
        &mut own
    };
    let machine = match place {
        Some(machine) => machine,
        none => none.insert(contender.start(row.guest)?),
    };
    let sample = work::run(row.work, machine)?;
    let malformed = machine.guest.driver.malformed;
    ensure!(
        malformed == 0 || !contender.is_ours(),
        "expected packets as long as their headers say; {malformed} were not"
    );
    Ok(sample)
}
