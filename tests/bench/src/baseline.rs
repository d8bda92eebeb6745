// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Compares this revision with another one: each has its own bench, and they run in turn.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::{env, io};

use anyhow::{Context, Result, ensure};
use vsock_report::{Revision, Spread, empty_table as empty};

use crate::RESULTS_FILE;
use crate::args::Args;
use crate::report::{rate, ratio};
use crate::results::{Results, SCHEMA};
use crate::suite::cell_name;

/// Measures both, and writes the ratio of their rates for each cell.
pub(crate) fn compare(args: &Args, revision: &str, out: &mut impl Write) -> Result<()> {
    let directory = std::path::absolute(args.out.join("baseline"))?;
    let revision = Revision::find(revision, &directory)?;
    let theirs = revision.build("vsock-bench")?;
    let ours = env::current_exe().context("cannot find the bench's own program")?;
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
    write_table(&rounds, revision.commit(), out)?;
    Ok(())
}

/// Runs a bench for one round and reads its results.
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
        "cannot compare: the other revision writes its results in another format"
    );
    Ok(results)
}

fn write_table(
    rounds: &[(Results, Results)],
    commit: &str,
    out: &mut impl Write,
) -> io::Result<()> {
    let mut table = empty(&["cell", "this revision", "times baseline"]);
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
        "This revision compared with {commit}, {} rounds of each in turn\n\n{table}",
        rounds.len()
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::write_table;
    use crate::results::{Cell, Results};
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
            cells: vec![cell],
            ..Results::new(String::new(), 2)
        }
    }

    #[test]
    fn a_cell_shows_the_median_ratio_of_its_rounds() {
        let rounds = [
            (results(10), results(20)),
            (results(10), results(40)),
            (results(10), results(30)),
        ];
        let mut text = Vec::new();
        write_table(&rounds, "abc", &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("3.00 (2.00..4.00)"), "{text}");
    }
}
