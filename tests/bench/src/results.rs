// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What was measured, as the JSON file contains it.

use serde::{Deserialize, Serialize};
use vsock_report::{kernel, processor};

use crate::sample::Sample;
use crate::suite::Workload;
use crate::workload::event_loop::IdleLoop;
use crate::workload::idle::Idle;

/// The version of the file's format. Only files of one version can be compared.
pub(crate) const SCHEMA: u32 = 1;

/// What one call of the bench measured.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Results {
    pub(crate) schema: u32,
    /// The processor's name.
    pub(crate) processor: String,
    /// The cores that the bench was permitted to use.
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    /// How system calls were counted, or why they were not.
    pub(crate) counted: String,
    pub(crate) cells: Vec<Cell>,
    pub(crate) idle: Vec<IdleRow<Idle>>,
    #[serde(default)]
    pub(crate) idle_loops: Vec<IdleRow<IdleLoop>>,
}

/// One row of one case of one workload, with a run per round.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Cell {
    pub(crate) workload: Workload,
    pub(crate) case: String,
    pub(crate) row: String,
    pub(crate) runs: Vec<Run>,
    /// System calls per unit; `None` where they were not counted.
    pub(crate) system_calls: Option<f64>,
}

/// One run.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Run {
    /// Bytes, or operations.
    pub(crate) units: u64,
    pub(crate) seconds: f64,
    /// Of both threads, voluntary and not.
    pub(crate) context_switches: u64,
}

/// The idle connections, or the loop of idle streams, of one row.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct IdleRow<T> {
    pub(crate) row: String,
    pub(crate) idle: T,
}

impl Cell {
    /// A cell without runs.
    pub(crate) fn new(workload: Workload, case: &str, row: &str) -> Self {
        Self {
            workload,
            case: case.to_owned(),
            row: row.to_owned(),
            runs: Vec::new(),
            system_calls: None,
        }
    }

    /// Adds the run of a round.
    pub(crate) fn add(&mut self, sample: Sample) {
        self.runs.push(Run {
            units: sample.units,
            seconds: sample.elapsed.as_secs_f64(),
            context_switches: sample.switches,
        });
    }

    /// Adds the system calls of a run that is not one of the rounds.
    pub(crate) fn count(&mut self, sample: Sample) {
        let units = sample.units.max(1) as f64;
        self.system_calls = sample.system_calls.map(|calls| calls as f64 / units);
    }

    /// Returns units per second, round by round.
    pub(crate) fn rates(&self) -> Vec<f64> {
        let rate = |run: &Run| run.units as f64 / run.seconds;
        self.runs.iter().map(rate).collect()
    }

    /// Returns context switches per unit, over all rounds.
    pub(crate) fn context_switches(&self) -> f64 {
        let switches: u64 = self.runs.iter().map(|run| run.context_switches).sum();
        let units: u64 = self.runs.iter().map(|run| run.units).sum();
        switches as f64 / units.max(1) as f64
    }
}

impl Results {
    /// Returns results without cells, of this machine.
    pub(crate) fn new(counted: String, cores: usize) -> Self {
        Self {
            schema: SCHEMA,
            processor: processor(),
            cores,
            kernel: kernel(),
            counted,
            cells: Vec::new(),
            idle: Vec::new(),
            idle_loops: Vec::new(),
        }
    }

    /// Returns how many rounds every row has run.
    pub(crate) fn rounds(&self) -> usize {
        self.cells.first().map_or(0, |cell| cell.runs.len())
    }

    /// Returns the cells of one workload, in the order of its table.
    pub(crate) fn of(&self, workload: Workload) -> impl Iterator<Item = &Cell> {
        self.cells
            .iter()
            .filter(move |cell| cell.workload == workload)
    }

    /// Returns one cell, if it was measured.
    pub(crate) fn cell(&self, workload: Workload, case: &str, row: &str) -> Option<&Cell> {
        self.of(workload)
            .find(|cell| cell.case == case && cell.row == row)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Cell;
    use crate::sample::Sample;
    use crate::suite::Workload;

    fn sample(units: u64, system_calls: Option<u64>) -> Sample {
        Sample {
            units,
            elapsed: Duration::from_millis(500),
            system_calls,
            switches: 3,
        }
    }

    #[test]
    fn switches_are_per_unit_over_all_rounds() {
        let mut cell = Cell::new(Workload::Stream, "64 B", "x");
        cell.add(sample(100, None));
        cell.add(sample(300, None));
        assert_eq!(cell.rates(), [200.0, 600.0]);
        assert_eq!(cell.context_switches(), 6.0 / 400.0);
    }

    #[test]
    fn calls_are_per_unit_of_the_counted_run() {
        let mut cell = Cell::new(Workload::Stream, "64 B", "x");
        cell.add(sample(100, None));
        assert_eq!(cell.system_calls, None);
        cell.count(sample(200, Some(50)));
        assert_eq!(cell.system_calls, Some(0.25));
        assert_eq!(cell.rates(), [200.0], "it is not a round");
    }
}
