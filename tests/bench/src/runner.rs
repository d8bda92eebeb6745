// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Runs the rows in rounds: each row once per round, so that all rows have the same conditions.

use std::time::Duration;

use anyhow::{Context, Result};
use vsock_report::{Progress, Watchdog};

use crate::results::Cell;
use crate::sample;
use crate::suite::{Group, Job};

/// How much to measure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// Runs of each row.
    pub(crate) rounds: usize,
    /// About how long one run takes.
    pub(crate) run: Duration,
}

/// Units that a row does in the first, shortest try.
const FIRST_TRY: u64 = 256;
/// The most units of one run.
const MOST_UNITS: u64 = 1 << 40;

/// Runs all groups, round after round.
///
/// The rows of a group run one after another. Each round begins with another row, so that no row
/// always runs after the same one.
pub(crate) fn run(groups: &[Group], effort: Effort) -> Result<Vec<Cell>> {
    let watchdog = Watchdog::start();
    let rows: usize = groups.iter().map(|group| group.rows.len()).sum();
    let progress = Progress::of_runs(rows * (effort.rounds + 1));
    let doing = |group: &Group, row: &str| {
        let name = group.cell_name(row);
        progress.doing(&name);
        watchdog.doing(name.clone());
        move || format!("{name} failed")
    };
    let mut tables: Vec<Vec<(Cell, u64)>> = Vec::new();
    progress.phase("calibration");
    for group in groups {
        let mut table = Vec::new();
        for (row, job) in &group.rows {
            let failed = doing(group, row);
            let units = fitting(job, effort.run).with_context(&failed)?;
            let mut cell = Cell::new(group.workload, group.case, row);
            cell.count(sample::counted(|| job(units)).with_context(&failed)?);
            table.push((cell, units));
            progress.advance(1);
        }
        tables.push(table);
    }
    for round in 0..effort.rounds {
        progress.phase(&format!("round {} of {}", round + 1, effort.rounds));
        for (group, table) in groups.iter().zip(&mut tables) {
            for turn in 0..table.len() {
                let index = (turn + round) % table.len();
                let ((row, job), (cell, units)) = (&group.rows[index], &mut table[index]);
                let failed = doing(group, row);
                cell.add(job(*units).with_context(failed)?);
                progress.advance(1);
            }
        }
    }
    progress.finish();
    let cells = tables.into_iter().flatten();
    Ok(cells.map(|(cell, _)| cell).collect())
}

/// Returns the units that `job` does in about the time `run`.
fn fitting(job: &Job, run: Duration) -> Result<u64> {
    let mut units = FIRST_TRY;
    loop {
        let sample = job(units)?;
        let share = sample.elapsed.as_secs_f64() / run.as_secs_f64();
        if share > 0.25 || units >= MOST_UNITS {
            return Ok(scaled(sample.units, 1.0 / share));
        }
        units = scaled(units, (0.5 / share).clamp(2.0, 16.0));
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates, and the result is clamped"
)]
fn scaled(units: u64, factor: f64) -> u64 {
    ((units as f64 * factor) as u64).clamp(1, MOST_UNITS)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell as Counter;
    use std::rc::Rc;
    use std::time::Duration;

    use super::{Effort, fitting, run};
    use crate::sample::Sample;
    use crate::suite::{Group, Job, Workload};

    /// A job that takes a microsecond per unit.
    fn steady() -> Job {
        Box::new(|units| {
            Ok(Sample {
                units,
                elapsed: Duration::from_micros(units),
                system_calls: None,
                switches: 0,
            })
        })
    }

    #[test]
    fn the_units_fill_the_time_of_a_run() {
        assert_eq!(
            fitting(&steady(), Duration::from_millis(100)).unwrap(),
            100_000
        );
        assert_eq!(fitting(&steady(), Duration::from_micros(50)).unwrap(), 50);
    }

    #[test]
    fn every_row_runs_once_a_round_and_each_round_begins_with_another() {
        let order = Rc::new(Counter::new(Vec::new()));
        let row = |name: &'static str| {
            let (order, inner) = (Rc::clone(&order), steady());
            let job: Job = Box::new(move |units| {
                let mut names = order.take();
                names.push(name);
                order.set(names);
                inner(units)
            });
            (name, job)
        };
        let group = Group {
            workload: Workload::Stream,
            case: "64 B",
            rows: vec![row("a"), row("b"), row("c")],
        };
        let effort = Effort {
            rounds: 3,
            run: Duration::from_micros(100), // the first try is long enough
        };
        let cells = run(&[group], effort).unwrap();
        // Each row is tried and counted before the first round.
        assert_eq!(order.take().join(""), "aabbccabcbcacab");
        assert!(cells.iter().all(|cell| cell.runs.len() == 3));
    }
}
