// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What was measured, as the JSON file contains it.

use serde::Serialize;
use vsock_report::{kernel, processor};

use crate::usage::Usage;

/// One run of a workload.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Sample {
    /// Bytes, or operations.
    pub(crate) units: f64,
    pub(crate) seconds: f64,
    /// What the device used.
    pub(crate) device: Usage,
    /// What the host component used.
    pub(crate) host: Usage,
}

/// The cost of idle connections.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct IdleCost {
    /// Anonymous memory of the device, per connection.
    pub(crate) bytes_each: f64,
    /// The share of a core that the device uses while nothing happens.
    pub(crate) core: f64,
}

/// A workload on a device, with a sample for each round.
#[derive(Debug, Serialize)]
pub(crate) struct Cell {
    pub(crate) work: &'static str,
    pub(crate) device: &'static str,
    pub(crate) samples: Vec<Sample>,
}

/// A measurement of memory on a device.
#[derive(Debug, Serialize)]
pub(crate) struct IdleCell {
    pub(crate) what: &'static str,
    pub(crate) device: &'static str,
    pub(crate) cost: IdleCost,
}

/// Everything.
#[derive(Debug, Serialize)]
pub(crate) struct Results {
    pub(crate) processor: String,
    pub(crate) kernel: String,
    pub(crate) devices: Vec<&'static str>,
    pub(crate) cells: Vec<Cell>,
    pub(crate) memory: Vec<IdleCell>,
}

impl Results {
    pub(crate) fn new(devices: impl Iterator<Item = &'static str>) -> Self {
        Self {
            processor: processor(),
            kernel: kernel(),
            devices: devices.collect(),
            cells: Vec::new(),
            memory: Vec::new(),
        }
    }

    /// Returns the cell, and creates it if it is missing.
    pub(crate) fn cell(&mut self, work: &'static str, device: &'static str) -> &mut Cell {
        let known = |cell: &Cell| cell.work == work && cell.device == device;
        let place = self
            .cells
            .iter()
            .position(known)
            .unwrap_or(self.cells.len());
        if place == self.cells.len() {
            let samples = Vec::new();
            self.cells.push(Cell {
                work,
                device,
                samples,
            });
        }
        &mut self.cells[place]
    }

    pub(crate) fn add_idle(&mut self, what: &'static str, device: &'static str, cost: IdleCost) {
        self.memory.push(IdleCell { what, device, cost });
    }

    pub(crate) fn find(&self, work: &str, device: &str) -> Option<&Cell> {
        self.cells
            .iter()
            .find(|cell| cell.work == work && cell.device == device)
    }
}

impl Cell {
    /// Returns a figure of each round.
    pub(crate) fn each(&self, figure: impl Fn(&Sample) -> f64) -> Vec<f64> {
        self.samples.iter().map(figure).collect()
    }
}

impl Sample {
    /// Returns units per second.
    pub(crate) fn rate(&self) -> f64 {
        self.units / self.seconds
    }

    /// Returns the device's CPU time in seconds per unit.
    pub(crate) fn cpu(&self) -> f64 {
        self.device.cpu / self.units
    }
}
