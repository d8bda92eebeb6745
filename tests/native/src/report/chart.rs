// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The charts of a run: rates or latencies, and next to them the device's CPU time.

use vsock_report::chart::{Axis, Bar, Case, Chart, Kind, Panel, Value};
use vsock_report::digits;

use super::compared;
use super::sheets::{CPU, RATE, latency_of};
use crate::device::{BASELINE, VHOST_DEVICE_VSOCK};
use crate::results::{Cell, Results};
use crate::row::{Row, Work};
use crate::shape::Shape;

/// What a chart shows.
struct Subject {
    /// The file of the chart.
    file: &'static str,
    title: &'static str,
    /// The heading of its first panel.
    panel: &'static str,
    axis: Axis,
    holds: fn(&Work) -> bool,
    value: fn(Work, &Cell) -> Option<Value>,
}

const SUBJECTS: [Subject; 4] = [
    Subject {
        file: "bench-device-bulk",
        title: "Throughput of a device",
        panel: "GB/s (longer is faster)",
        axis: Axis::Linear,
        holds: |work| matches!(work, Work::Bulk { .. }),
        value: |_, cell| {
            let rate = cell.median(RATE)? / 1e9;
            Some(bar(rate, format!("{} GB/s", digits(rate))))
        },
    },
    Subject {
        file: "bench-device-operations",
        title: "Round trips, requests and connections",
        panel: "thousands per second (longer is faster)",
        axis: Axis::Linear,
        holds: |work| {
            use Work::{Connects, Requests, Turns};
            matches!(work, Turns { .. } | Requests { .. } | Connects { .. })
        },
        value: |_, cell| {
            let rate = cell.median(RATE)? / 1e3;
            Some(bar(rate, format!("{} k/s", digits(rate))))
        },
    },
    Subject {
        file: "bench-device-latency",
        title: "Latency of packets that are sent at fixed times",
        panel: "us, dot: p50, line: up to p99 (left is faster)",
        axis: Axis::Logarithmic,
        holds: |work| matches!(work, Work::Packets { .. }),
        value: |work, cell| {
            let (p50, p99) = latency_of(work);
            let (p50, p99) = (cell.median(p50)?, cell.median(p99)?);
            Some(Value {
                at: p50,
                up_to: Some(p99),
                figure: format!("{} / {} us", digits(p50), digits(p99)),
            })
        },
    },
    Subject {
        file: "bench-device-idle",
        title: "Round trips of 64 B among idle connections",
        panel: "thousands per second (longer is faster)",
        axis: Axis::Linear,
        holds: |work| matches!(work, Work::Idle { .. }),
        value: |_, cell| {
            let rate = cell.median(RATE)? / 1e3;
            Some(bar(rate, format!("{} k/s", digits(rate))))
        },
    },
];

/// Returns a chart for each subject that has rows, with the name of its file.
pub(crate) fn all(results: &Results, rows: &[Row]) -> Vec<(&'static str, String)> {
    let charts = SUBJECTS.iter().map(|subject| {
        let chart = subject.chart(results, rows);
        Some((subject.file, chart.svg()?))
    });
    charts.flatten().collect()
}

impl Subject {
    fn chart(&self, results: &Results, rows: &[Row]) -> Chart {
        let rows = rows.iter();
        // The guests with other habits have rows in the tables only.
        let rows = rows.filter(|row| (self.holds)(&row.work) && row.guest == Shape::USUAL);
        let cases = rows.map(|row| Case {
            name: row.name.clone(),
            bars: results
                .of_row(&row.name)
                .map(|cell| self.bar(results, row.work, cell))
                .collect(),
        });
        let mut panels = vec![Panel {
            title: self.panel.to_owned(),
            axis: self.axis,
        }];
        // Without the reference there are no ratios, and a panel needs values.
        let mut cells = results.cells.iter();
        if cells.any(|cell| cell.device == results.reference) {
            panels.push(Panel {
                title: format!("CPU time, {} = 1", results.reference),
                axis: Axis::Linear,
            });
        }
        Chart {
            title: self.title.to_owned(),
            note: format!(
                "Medians of {} rounds on {}, {}, {}.",
                results.rounds(),
                results.place,
                results.processor,
                results.kernel
            ),
            panels,
            cases: cases.filter(|case| !case.bars.is_empty()).collect(),
        }
    }

    fn bar(&self, results: &Results, work: Work, cell: &Cell) -> Bar {
        let is_reference = cell.device == results.reference;
        let cpu = if is_reference {
            Some(1.0)
        } else {
            compared(results, cell, CPU).map(|ratio| ratio.median)
        };
        Bar {
            label: cell.device.clone(),
            kind: match &*cell.device {
                VHOST_DEVICE_VSOCK | BASELINE => Kind::Other,
                _ => Kind::Ours,
            },
            values: vec![
                (self.value)(work, cell),
                cpu.map(|ratio| bar(ratio, format!("{ratio:.2}"))),
            ],
        }
    }
}

fn bar(at: f64, figure: String) -> Value {
    Value {
        at,
        up_to: None,
        figure,
    }
}
