// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The measurements, in the form in which they are saved.

use serde::{Deserialize, Serialize};
use vsock_guest::usage::Usage;
use vsock_report::{Spread, median};

use crate::latency::Latencies;
use crate::shape::Shape;

/// One run of a row on a device.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Sample {
    /// Bytes or operations.
    pub(crate) units: f64,
    pub(crate) seconds: f64,
    /// The device's usage during the run.
    pub(crate) device: Usage,
    pub(crate) kicks: f64,
    pub(crate) interrupts: f64,
    pub(crate) latencies: Latencies,
    /// The bytes that another connection carried at the same time.
    pub(crate) beside: Option<f64>,
    /// The share of a core that the device used before the run, without traffic.
    pub(crate) idle_core: Option<f64>,
}

/// A row on a device, with a sample for each round. A round that failed is `None`.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Cell {
    pub(crate) row: String,
    pub(crate) device: String,
    pub(crate) samples: Vec<Option<Sample>>,
}

/// All measurements of a run.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Results {
    pub(crate) schema: u32,
    pub(crate) processor: String,
    pub(crate) kernel: String,
    /// The cores that the threads ran on.
    pub(crate) place: String,
    /// The configuration of the guest's driver, except in rows that name another one.
    pub(crate) guest: Shape,
    /// The revision of the device "baseline".
    pub(crate) baseline: Option<String>,
    /// The device that the others are compared with.
    pub(crate) reference: String,
    pub(crate) cells: Vec<Cell>,
}

/// A function that extracts a figure from a sample.
pub(crate) type Figure = fn(&Sample) -> Option<f64>;

impl Results {
    /// Returns how many rounds were run.
    pub(crate) fn rounds(&self) -> usize {
        self.cells.first().map_or(0, |cell| cell.samples.len())
    }

    /// Returns the row on one device, if it was measured.
    pub(crate) fn find(&self, row: &str, device: &str) -> Option<&Cell> {
        self.of_row(row).find(|cell| cell.device == device)
    }

    /// Returns the row on all devices.
    pub(crate) fn of_row(&self, row: &str) -> impl Iterator<Item = &Cell> {
        self.cells.iter().filter(move |cell| cell.row == row)
    }

    /// Adds the sample of a round.
    pub(crate) fn add(&mut self, row: &str, device: &str, sample: Option<Sample>) {
        let mut cells = self.cells.iter_mut();
        match cells.find(|cell| cell.row == row && cell.device == device) {
            Some(cell) => cell.samples.push(sample),
            None => self.cells.push(Cell {
                row: row.to_owned(),
                device: device.to_owned(),
                samples: vec![sample],
            }),
        }
    }
}

impl Cell {
    /// Returns the median over the rounds.
    pub(crate) fn median(&self, figure: Figure) -> Option<f64> {
        median(self.samples.iter().flatten().filter_map(figure))
    }

    /// Returns the ratio to another device, taken within each round.
    pub(crate) fn ratio(&self, to: &Self, figure: Figure) -> Option<Spread> {
        let rounds = self.samples.iter().zip(&to.samples);
        let both = rounds.filter_map(|(ours, theirs)| {
            let both = figure(ours.as_ref()?)?;
            Some((both, figure(theirs.as_ref()?)?))
        });
        let (ours, theirs): (Vec<_>, Vec<_>) = both.filter(|both| both.1 > 0.0).unzip();
        Spread::of_ratios(&ours, &theirs)
    }

    /// Returns how many rounds failed.
    pub(crate) fn failures(&self) -> usize {
        let failed = self.samples.iter().filter(|sample| sample.is_none());
        failed.count()
    }
}

#[cfg(test)]
mod tests {
    use super::{Cell, Sample};

    fn cell(units: &[Option<f64>]) -> Cell {
        let sample = |units| Sample {
            units,
            seconds: 1.0,
            device: Default::default(),
            kicks: 0.0,
            interrupts: 0.0,
            latencies: Default::default(),
            beside: None,
            idle_core: None,
        };
        Cell {
            row: String::new(),
            device: String::new(),
            samples: units.iter().map(|units| units.map(sample)).collect(),
        }
    }

    #[test]
    fn a_round_counts_if_both_devices_completed_it() {
        let ours = cell(&[Some(10.0), None, Some(30.0), Some(8.0)]);
        let theirs = cell(&[Some(5.0), Some(1.0), None, Some(2.0)]);
        let ratio = ours.ratio(&theirs, |sample| Some(sample.units)).unwrap();
        assert_eq!((ratio.least, ratio.median, ratio.most), (2.0, 3.0, 4.0));
        assert_eq!(ours.failures(), 1);
        assert_eq!(ours.median(|sample| Some(sample.units)), Some(10.0));
    }
}
