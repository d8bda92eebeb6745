// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What was measured, as it is kept.

use serde::{Deserialize, Serialize};
use vsock_guest::usage::Usage;
use vsock_report::Spread;

use crate::latency::Latencies;
use crate::shape::Shape;

/// One run of a row on a device.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Sample {
    /// Bytes, or operations.
    pub(crate) units: f64,
    pub(crate) seconds: f64,
    /// What the device used for it.
    pub(crate) device: Usage,
    pub(crate) kicks: f64,
    pub(crate) interrupts: f64,
    pub(crate) latencies: Latencies,
    /// Bytes that another connection carried meanwhile.
    pub(crate) beside: Option<f64>,
    /// Share of a core that the device used before, while nothing moved.
    pub(crate) idle_core: Option<f64>,
}

/// A row on a device, with a sample for each round; `None` of a round that failed.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Cell {
    pub(crate) row: String,
    pub(crate) device: String,
    pub(crate) samples: Vec<Option<Sample>>,
}

/// Everything.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Results {
    pub(crate) schema: u32,
    pub(crate) processor: String,
    pub(crate) kernel: String,
    /// Where the threads ran.
    pub(crate) place: String,
    /// How the guest's driver was set up.
    pub(crate) guest: Shape,
    /// The revision that the device "baseline" is of.
    pub(crate) baseline: Option<String>,
    /// The device that the others are compared with.
    pub(crate) reference: String,
    pub(crate) cells: Vec<Cell>,
}

/// A figure of a sample.
pub(crate) type Figure = fn(&Sample) -> Option<f64>;

/// Figures: times in nanoseconds, or in seconds on a core; everything that is used per unit.
impl Sample {
    pub(crate) fn rate(&self) -> Option<f64> {
        Some(self.units / self.seconds)
    }

    pub(crate) fn cpu(&self) -> Option<f64> {
        Some(self.device.cpu / self.units)
    }

    pub(crate) fn switches(&self) -> Option<f64> {
        Some(self.device.switches / self.units)
    }

    pub(crate) fn kicks_each(&self) -> Option<f64> {
        Some(self.kicks / self.units)
    }

    pub(crate) fn interrupts_each(&self) -> Option<f64> {
        Some(self.interrupts / self.units)
    }

    pub(crate) fn median(&self) -> Option<f64> {
        Some(self.latencies.packets?.median as f64)
    }

    pub(crate) fn p99(&self) -> Option<f64> {
        Some(self.latencies.packets?.p99 as f64)
    }

    pub(crate) fn most(&self) -> Option<f64> {
        Some(self.latencies.packets?.most as f64)
    }

    pub(crate) fn slow(&self) -> Option<f64> {
        Some(self.latencies.packets?.slow)
    }

    pub(crate) fn burst_median(&self) -> Option<f64> {
        Some(self.latencies.bursts?.median as f64)
    }

    pub(crate) fn burst_p99(&self) -> Option<f64> {
        Some(self.latencies.bursts?.p99 as f64)
    }

    pub(crate) fn beside_rate(&self) -> Option<f64> {
        Some(self.beside? / self.seconds)
    }
}

impl Results {
    pub(crate) fn find(&self, row: &str, device: &str) -> Option<&Cell> {
        self.cells
            .iter()
            .find(|cell| cell.row == row && cell.device == device)
    }

    /// The cell, made if need be.
    pub(crate) fn cell(&mut self, row: &str, device: &str) -> &mut Cell {
        let found = self
            .cells
            .iter()
            .position(|cell| cell.row == row && cell.device == device);
        let place = found.unwrap_or_else(|| {
            self.cells.push(Cell {
                row: row.to_owned(),
                device: device.to_owned(),
                samples: Vec::new(),
            });
            self.cells.len() - 1
        });
        &mut self.cells[place]
    }
}

impl Cell {
    /// The middle of the rounds.
    pub(crate) fn median(&self, figure: Figure) -> Option<f64> {
        let values = self.samples.iter().flatten().filter_map(figure);
        Spread::of(values).map(|spread| spread.median)
    }

    /// As a ratio to another device's, round by round.
    pub(crate) fn ratio(&self, to: &Self, figure: Figure) -> Option<Spread> {
        let rounds = self.samples.iter().zip(&to.samples);
        let both = rounds.filter_map(|(ours, theirs)| {
            let both = figure(ours.as_ref()?)?;
            Some((both, figure(theirs.as_ref()?)?))
        });
        let (ours, theirs): (Vec<_>, Vec<_>) = both.filter(|both| both.1 > 0.0).unzip();
        Spread::of_ratios(&ours, &theirs)
    }

    /// Rounds that failed.
    pub(crate) fn failures(&self) -> usize {
        self.samples
            .iter()
            .filter(|sample| sample.is_none())
            .count()
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
    fn a_round_counts_where_both_devices_have_it() {
        let ours = cell(&[Some(10.0), None, Some(30.0), Some(8.0)]);
        let theirs = cell(&[Some(5.0), Some(1.0), None, Some(2.0)]);
        let ratio = ours.ratio(&theirs, |sample| Some(sample.units)).unwrap();
        assert_eq!((ratio.least, ratio.median, ratio.most), (2.0, 3.0, 4.0));
        assert_eq!(ours.failures(), 1);
        assert_eq!(ours.median(|sample| Some(sample.units)), Some(10.0));
    }
}
