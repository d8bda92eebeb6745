// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! This revision beside another one: each with the bench of its own, in turn, round after round.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, io};

use anyhow::{Context, Result, ensure};
use vsock_report::{Spread, empty_table as empty};

use crate::RESULTS_FILE;
use crate::args::Args;
use crate::report::format::{rate, ratio};
use crate::results::{Results, SCHEMA};
use crate::suite::cell_name;

/// Measures both and writes how many times as fast this revision is, cell by cell.
pub(crate) fn compare(args: &Args, revision: &str, out: &mut impl Write) -> Result<()> {
    let directory = std::path::absolute(args.out.join("baseline"))?;
    let commit = said(
        Command::new("git")
            .args(["rev-parse", "--verify", "--end-of-options"])
            .arg(format!("{revision}^{{commit}}")),
    )
    .with_context(|| format!("{revision:?} is no revision of this repository"))?;
    let theirs = build(&commit, &directory)?;
    let ours = env::current_exe().context("the bench cannot find itself")?;
    let mut rounds = Vec::new();
    for round in 0..args.effort().rounds {
        let here = || one_round(&ours, args, &directory.join("ours"));
        let there = || one_round(&theirs, args, &directory.join("theirs"));
        rounds.push(if round % 2 == 0 {
            let here = here()?;
            (here, there()?)
        } else {
            let there = there()?;
            (here()?, there)
        });
    }
    write_table(&rounds, &commit, out)?;
    Ok(())
}

/// What a program writes to its output.
fn said(command: &mut Command) -> Result<String> {
    let output = command.stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "{command:?} failed");
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Builds the bench of `commit` from a copy of its files.
fn build(commit: &str, directory: &Path) -> Result<PathBuf> {
    let tree = directory.join(commit);
    let repository = said(Command::new("git").args(["rev-parse", "--show-toplevel"]))?;
    if !tree.exists() {
        let unpacked = directory.join("unpacking");
        fs::create_dir_all(&unpacked)?;
        let archive = directory.join("tree.tar");
        let git = Command::new("git")
            .current_dir(&repository)
            .args(["archive", "--format=tar", commit])
            .stdout(File::create(&archive)?)
            .status()?;
        ensure!(git.success(), "git archive {commit} failed");
        let tar = Command::new("tar")
            .arg("-xf")
            .arg(&archive)
            .arg("-C")
            .arg(&unpacked)
            .status()
            .context("cannot run tar")?;
        ensure!(tar.success(), "tar failed");
        fs::rename(&unpacked, &tree)?;
    }
    let target = directory.join("target");
    let cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(&tree)
        .env("CARGO_TARGET_DIR", &target)
        .args(["build", "--quiet", "--locked", "--profile", "bench"])
        .args(["--package", "vsock-bench"])
        .status()?;
    ensure!(cargo.success(), "the bench of {commit} does not build");
    Ok(target.join("release").join("vsock-bench"))
}

/// Runs a bench for one round and reads what it has kept.
fn one_round(bench: &Path, args: &Args, kept: &Path) -> Result<Results> {
    let status = Command::new(bench)
        .args(args.for_one_round())
        .arg("--out")
        .arg(kept)
        .stdout(Stdio::null())
        .status()?;
    ensure!(status.success(), "{} failed", bench.display());
    let results: Results = serde_json::from_reader(File::open(kept.join(RESULTS_FILE))?)?;
    ensure!(
        results.schema == SCHEMA,
        "the other revision keeps its results in another shape"
    );
    Ok(results)
}

fn write_table(
    rounds: &[(Results, Results)],
    commit: &str,
    out: &mut impl Write,
) -> io::Result<()> {
    let mut table = empty(&["cell", "here", "x baseline"]);
    for cell in rounds.first().map_or(&[][..], |(here, _)| &here.cells) {
        let rates = |results: &Results| {
            let same = results.cell(cell.workload, &cell.case, &cell.row)?;
            same.rates().first().copied()
        };
        let pairs = rounds
            .iter()
            .filter_map(|(here, there)| rates(here).zip(rates(there)));
        let (here, there): (Vec<_>, Vec<_>) = pairs.unzip();
        if let (Some(speed), Some(times)) =
            (Spread::of(here.clone()), Spread::of_ratios(&here, &there))
        {
            table.add_row([
                cell_name(cell.workload, &cell.case, &cell.row),
                rate(cell.workload.unit(), speed.median),
                ratio(times),
            ]);
        }
    }
    writeln!(
        out,
        "This revision beside {commit}, {} rounds of each in turn\n\n{table}",
        rounds.len()
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::write_table;
    use crate::results::{Cell, Results, SCHEMA};
    use crate::sample::Sample;
    use crate::suite::{UNIX, Workload};

    fn results(millis: u64) -> Results {
        let mut cell = Cell::new(Workload::Stream, "64 B", UNIX);
        cell.add(Sample {
            units: 1 << 20,
            elapsed: Duration::from_millis(millis),
            system_calls: None,
            switches: 0,
        });
        Results {
            schema: SCHEMA,
            processor: String::new(),
            cores: 2,
            kernel: String::new(),
            counted: String::new(),
            cells: vec![cell],
            idle: Vec::new(),
            idle_loops: Vec::new(),
        }
    }

    #[test]
    fn a_cell_is_as_many_times_as_fast_as_its_median_round() {
        let rounds = [
            (results(10), results(20)),
            (results(10), results(40)),
            (results(10), results(30)),
        ];
        let mut text = Vec::new();
        write_table(&rounds, "abc", &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("3.00 x (2.00 .. 4.00)"), "{text}");
    }
}
