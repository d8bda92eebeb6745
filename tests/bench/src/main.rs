// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Compares the transport with its alternatives: the same jobs, in one run, on one machine.
//!
//! A *workload* (a stream, round trips, connections) has *cases* (the size of a write), and in each
//! case every *row* (a transport, or a limit) does the same job. A *cell* is one row of one case
//! and runs once per round. All cells of a case run one after another, and ratios are taken
//! within a round, because a machine's speed changes from one second to the next.

mod args;
mod baseline;
mod muxer;
mod report;
mod results;
mod runner;
mod sample;
mod suite;
mod targets;
mod transport;
mod workload;

use std::env;
use std::fs::File;
use std::io::{self, BufReader, Write};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use vsock_report::{allowed_cores, figures, keep};

use crate::args::Args;
use crate::report::{chart, page, table};
use crate::results::{IdleRow, Results};
use crate::suite::{Group, IDLE_LOOP_ROWS, IDLE_ROWS, Workload};
use crate::workload::idle::Idle;

/// The file with all results.
const RESULTS_FILE: &str = "results.json";
/// How many streams an idle loop has.
const IDLE_STREAMS: usize = 10_000;
/// How long the loop is observed.
const IDLE_TIME: Duration = Duration::from_secs(1);

fn main() -> Result<()> {
    let args = Args::parse();
    if let Some(row) = &args.idle {
        let idle = suite::hold_idle(row, args.connections)?;
        serde_json::to_writer(io::stdout(), &idle)?;
        return Ok(());
    }
    if args.publish {
        return publish(&args.out);
    }
    if args.muxer {
        return muxer::run(args.effort(), &args.out);
    }
    let mut groups = suite::all_groups(args.place());
    keep_matching(&mut groups, &args.filter);
    let matching = |rows: &[&'static str], table: &str| -> Vec<&str> {
        let names = rows.iter().copied();
        names
            .filter(|row| format!("{table}/{row}").contains(&args.filter))
            .collect()
    };
    let idle_rows = matching(&IDLE_ROWS, "idle");
    let idle_loops = matching(&IDLE_LOOP_ROWS, "loop-idle");
    if args.list {
        return list(&groups, &idle_rows, &idle_loops);
    }
    ensure!(
        !(groups.is_empty() && idle_rows.is_empty() && idle_loops.is_empty()),
        "no cell's name contains {:?}; --list shows all names",
        args.filter
    );
    if let Some(revision) = &args.baseline {
        return baseline::compare(&args, revision, &mut io::stdout().lock());
    }
    let results = measure(&args, &groups, &idle_rows, &idle_loops)?;
    let mut out = io::stdout().lock();
    table::write_results(&mut out, &results)?;
    writeln!(out, "\n{}", figures(&targets::verdicts(&results)))?;
    let json = serde_json::to_vec_pretty(&results)?;
    let charts = Workload::ALL
        .iter()
        .filter_map(|workload| Some((workload.name(), chart::svg(&results, *workload, |_| true)?)));
    writeln!(out, "\n{}", keep(&args.out, RESULTS_FILE, &json, charts)?)?;
    Ok(())
}

/// Writes the results of the last run into the documentation.
fn publish(kept: &Path) -> Result<()> {
    let file = kept.join(RESULTS_FILE);
    let open = File::open(&file);
    let open =
        open.with_context(|| format!("cannot read {}: run the bench first", file.display()))?;
    let results: Results = serde_json::from_reader(BufReader::new(open))?;
    let written = page::write(&results, Path::new(vsock_report::DOCS))?;
    writeln!(io::stdout(), "{written}")?;
    Ok(())
}

/// Keeps the cells whose names contain `filter`, and the reference of each group that keeps any.
fn keep_matching(groups: &mut Vec<Group>, filter: &str) {
    for group in &mut *groups {
        let (workload, case) = (group.workload, group.case);
        let matches = |row: &str| suite::cell_name(workload, case, row).contains(filter);
        if group.rows.iter().any(|(row, _)| matches(row)) {
            group
                .rows
                .retain(|(row, _)| *row == suite::UNIX || matches(row));
        } else {
            group.rows.clear();
        }
    }
    groups.retain(|group| !group.rows.is_empty());
}

fn list(groups: &[Group], idle_rows: &[&str], idle_loops: &[&str]) -> Result<()> {
    let mut out = io::stdout().lock();
    for group in groups {
        for (row, _) in &group.rows {
            writeln!(out, "{}", group.cell_name(row))?;
        }
    }
    for row in idle_rows {
        writeln!(out, "idle/{row}")?;
    }
    for row in idle_loops {
        writeln!(out, "loop-idle/{row}")?;
    }
    Ok(())
}

fn measure(
    args: &Args,
    groups: &[Group],
    idle_rows: &[&str],
    idle_loop_rows: &[&str],
) -> Result<Results> {
    let mut idle = Vec::new();
    for row in idle_rows {
        idle.push(idle_in_a_child(row, args.connections)?);
    }
    let mut idle_loops = Vec::new();
    for row in idle_loop_rows {
        let idle = suite::idle_loop(row, IDLE_STREAMS, IDLE_TIME);
        idle_loops.push(IdleRow {
            row: (*row).to_owned(),
            idle: idle.with_context(|| format!("loop-idle/{row} failed"))?,
        });
    }
    Ok(Results {
        cells: runner::run(groups, args.effort())?,
        idle,
        idle_loops,
        ..Results::new(sample::counting(), allowed_cores()?.len())
    })
}

/// Measures idle connections in a new process, whose memory nothing else has used.
fn idle_in_a_child(row: &str, connections: u64) -> Result<IdleRow<Idle>> {
    let bench = env::current_exe().context("cannot find the bench's own program")?;
    let output = Command::new(bench)
        .args(["--idle", row, "--connections", &connections.to_string()])
        .output()
        .context("cannot start the bench's own program")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "idle/{row} failed: {said}");
    Ok(IdleRow {
        row: row.to_owned(),
        idle: serde_json::from_slice(&output.stdout)?,
    })
}
