// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Compares our devices with vhost-device-vsock, in turn, with the same Linux guest.
//!
//! Under software emulation the guest dominates elapsed time. So the figure to look at is the CPU
//! time of the device, as a ratio to that of vhost-device-vsock in the same round.

mod memory;
mod report;
mod results;
mod targets;
mod work;

use std::fs;
use std::path::PathBuf;

use anyhow::Context;

use self::results::{Results, Sample};
use self::work::Work;
use crate::machine::{Guests, Machine, Parts};
use crate::place::Place;
use crate::processes::Processes;

/// Runs all workloads on each device in turn for a number of rounds, and reports.
pub(crate) fn run(place: &Place, parts: &[Parts], rounds: u32, filter: &str) -> anyhow::Result<()> {
    let works: Vec<Work> = Work::ALL
        .into_iter()
        .filter(|work| work.name().contains(filter))
        .collect();
    let mut results = Results::new(parts.iter().map(|parts| parts.kind.name()));
    for round in 0..rounds {
        for turn in 0..parts.len() {
            // The first device in one round is the last in another.
            let parts = &parts[(turn + round as usize) % parts.len()];
            let name = parts.kind.name();
            println!("round {} of {rounds}: {name}", round + 1);
            one_round(parts, &works, &mut results)
                .with_context(|| format!("{name}, round {}", round + 1))?;
        }
    }
    for parts in parts {
        measure_idle(parts, filter, &mut results).with_context(|| parts.kind.name())?;
    }
    let verdicts = targets::verdicts(&results);
    print!("{}", report::text(&results, &verdicts));
    let file = write(place, &results)?;
    println!("\nresults: {}", file.display());
    Ok(())
}

fn one_round(parts: &Parts, works: &[Work], results: &mut Results) -> anyhow::Result<()> {
    let mut machine = Machine::start(parts, Guests::One, &Processes::default())?;
    for work in works {
        let sample = work.run(&mut machine).with_context(|| work.name())?;
        let cell = results.cell(work.name(), parts.kind.name());
        cell.samples.push(sample);
    }
    Ok(())
}

/// Measures idle connections, each kind on a new machine: memory that the allocator keeps after
/// one would be missing from the next.
fn measure_idle(parts: &Parts, filter: &str, results: &mut Results) -> anyhow::Result<()> {
    for (what, measure) in memory::ALL {
        if what.contains(filter) {
            let mut machine = Machine::start(parts, Guests::One, &Processes::default())?;
            let cost = measure(&mut machine).context(what)?;
            results.add_idle(what, parts.kind.name(), cost);
        }
    }
    Ok(())
}

fn write(place: &Place, results: &Results) -> anyhow::Result<PathBuf> {
    let directory = place.target.join("bench");
    fs::create_dir_all(&directory)?;
    let file = directory.join("guest.json");
    fs::write(&file, serde_json::to_vec_pretty(results)?)
        .with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file)
}
