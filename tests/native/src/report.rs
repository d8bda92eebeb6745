// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The tables of a run, and its charts.

use vsock_bench::chart::{Bar, Case, Chart, OURS, PEER as PEER_COLOUR};
use vsock_bench::format::{digits, empty};
use vsock_bench::stats::Spread;

use crate::device::{BASELINE, PEER};
use crate::latency::Latency;
use crate::results::{Cell, Figure, Results, Sample};
use crate::row::{Group, Row};

const MIB: f64 = 1_048_576.0;
const GIB: f64 = 1_073_741_824.0;

/// A column of a table.
struct Column {
    head: &'static str,
    figure: Figure,
    /// Whether a column with the ratio to the reference follows.
    compared: bool,
}

const fn plain(head: &'static str, figure: Figure) -> Column {
    let compared = false;
    Column {
        head,
        figure,
        compared,
    }
}

const fn compared(head: &'static str, figure: Figure) -> Column {
    let compared = true;
    Column {
        head,
        figure,
        compared,
    }
}

/// A table: the rows of a group.
struct Sheet {
    group: Group,
    title: &'static str,
    columns: &'static [Column],
    /// The file of its chart, what that shows, and the figure.
    chart: (&'static str, &'static str, Figure),
}

const SHEETS: [Sheet; 4] = [
    Sheet {
        group: Group::Bulk,
        title: "Bulk",
        columns: &[
            compared("MB/s", |sample| Some(sample.units / sample.seconds / 1e6)),
            compared("CPU s/GiB", |sample| {
                Some(sample.device.cpu / sample.units * GIB)
            }),
            plain("kicks/MiB", |sample| {
                Some(sample.kicks / sample.units * MIB)
            }),
            plain("interrupts/MiB", |sample| {
                Some(sample.interrupts / sample.units * MIB)
            }),
            plain("switches/MiB", |sample| {
                Some(sample.device.switches / sample.units * MIB)
            }),
        ],
        chart: ("bulk", "MB/s; longer is faster", |sample| {
            Some(sample.units / sample.seconds / 1e6)
        }),
    },
    Sheet {
        group: Group::Operations,
        title: "Round trips, requests and connections",
        columns: &[
            compared("per second", rate),
            compared("CPU us each", cpu_each),
            plain("kicks each", kicks_each),
            plain("interrupts each", interrupts_each),
            plain("switches each", switches_each),
            plain("p50 us", |sample| {
                packets(sample, |latency| latency.median as f64 / 1e3)
            }),
            compared("p99 us", p99),
            plain("bulk beside, MB/s", |sample| {
                Some(sample.beside? / sample.seconds / 1e6)
            }),
        ],
        chart: ("operations", "per second; longer is faster", rate),
    },
    Sheet {
        group: Group::Packets,
        title: "Packets that come when they come",
        columns: &[
            compared("p50 us", |sample| {
                packets(sample, |latency| latency.median as f64 / 1e3)
            }),
            compared("p99 us", p99),
            plain("max us", |sample| {
                packets(sample, |latency| latency.most as f64 / 1e3)
            }),
            plain("over 1 ms, %", |sample| {
                packets(sample, |latency| latency.slow * 100.0)
            }),
            plain("burst p50 us", |sample| {
                Some(sample.latencies.bursts?.median as f64 / 1e3)
            }),
            plain("burst p99 us", |sample| {
                Some(sample.latencies.bursts?.p99 as f64 / 1e3)
            }),
            compared("CPU us each", cpu_each),
            plain("kicks each", kicks_each),
            plain("interrupts each", interrupts_each),
            plain("switches each", switches_each),
        ],
        chart: (
            "packets",
            "99 of 100 took no longer, in us; shorter is better",
            p99,
        ),
    },
    Sheet {
        group: Group::Idle,
        title: "Idle connections, and round trips of 64 B among them",
        columns: &[
            plain("core while idle, %", |sample| {
                Some(sample.idle_core? * 100.0)
            }),
            compared("trips per second", rate),
            compared("CPU us each", cpu_each),
            plain("p50 us", |sample| {
                packets(sample, |latency| latency.median as f64 / 1e3)
            }),
            compared("p99 us", p99),
        ],
        chart: ("idle", "round trips per second; longer is faster", rate),
    },
];

fn rate(sample: &Sample) -> Option<f64> {
    Some(sample.units / sample.seconds)
}

fn cpu_each(sample: &Sample) -> Option<f64> {
    Some(sample.device.cpu / sample.units * 1e6)
}

fn kicks_each(sample: &Sample) -> Option<f64> {
    Some(sample.kicks / sample.units)
}

fn interrupts_each(sample: &Sample) -> Option<f64> {
    Some(sample.interrupts / sample.units)
}

fn switches_each(sample: &Sample) -> Option<f64> {
    Some(sample.device.switches / sample.units)
}

fn p99(sample: &Sample) -> Option<f64> {
    packets(sample, |latency| latency.p99 as f64 / 1e3)
}

fn packets(sample: &Sample, figure: impl Fn(&Latency) -> f64) -> Option<f64> {
    sample.latencies.packets.as_ref().map(figure)
}

/// Everything, as a person reads it.
pub(crate) fn text(results: &Results, rows: &[Row]) -> String {
    let mut text = format!(
        "{}, {}, {}\nThe guest: {:?}.\nMedians of the rounds; ratios (x) are to the device \"{}\" in the same round: the \
         median, with the least and the greatest.\n",
        results.processor, results.kernel, results.place, results.guest, results.reference
    );
    if let Some(commit) = &results.baseline {
        text += &format!("The device \"{BASELINE}\" is our program of {commit}.\n");
    }
    for sheet in &SHEETS {
        text += &sheet.table(results, rows);
    }
    text
}

/// A chart for each table that has rows, with the name of its file.
pub(crate) fn charts(results: &Results, rows: &[Row]) -> Vec<(&'static str, String)> {
    SHEETS
        .iter()
        .filter_map(|sheet| Some((sheet.chart.0, sheet.chart(results, rows).svg()?)))
        .collect()
}

impl Sheet {
    fn rows<'a>(&self, rows: &'a [Row]) -> impl Iterator<Item = &'a Row> {
        let group = self.group;
        rows.iter().filter(move |row| row.work.group() == group)
    }

    fn cells<'a>(
        &self,
        results: &'a Results,
        rows: &'a [Row],
    ) -> impl Iterator<Item = (&'a Row, &'a Cell)> {
        self.rows(rows).flat_map(|row| {
            let cells = results.cells.iter();
            let of_row = cells.filter(|cell| cell.row == row.name);
            of_row.map(move |cell| (row, cell))
        })
    }

    fn table(&self, results: &Results, rows: &[Row]) -> String {
        let mut head = vec!["row", "device"];
        for column in self.columns {
            head.push(column.head);
            head.extend(column.compared.then_some("x"));
        }
        head.push("failed");
        let mut table = empty(&head);
        for (row, cell) in self.cells(results, rows) {
            let reference = results
                .find(&row.name, &results.reference)
                .filter(|_| cell.device != results.reference);
            let mut line = vec![row.name.clone(), cell.device.clone()];
            for column in self.columns {
                let median = cell.median(column.figure);
                line.push(median.map_or_else(none, digits));
                if column.compared {
                    let ratio = reference.and_then(|other| cell.ratio(other, column.figure));
                    line.push(ratio.map_or_else(none, spread));
                }
            }
            line.push(match cell.failures() {
                0 => none(),
                failures => failures.to_string(),
            });
            table.add_row(line);
        }
        if table.row_count() == 0 {
            return String::new();
        }
        format!("\n{}\n\n{table}\n", self.title)
    }

    fn chart(&self, results: &Results, rows: &[Row]) -> Chart {
        let (_, note, figure) = self.chart;
        let cases = self.rows(rows).map(|row| {
            let cells = results.cells.iter().filter(|cell| cell.row == row.name);
            let bars = cells.filter_map(|cell| {
                let value = cell.median(figure)?;
                Some(Bar {
                    label: cell.device.clone(),
                    value,
                    figure: digits(value),
                    colour: match &*cell.device {
                        PEER | BASELINE => PEER_COLOUR,
                        _ => OURS,
                    },
                })
            });
            Case {
                name: row.name.clone(),
                bars: bars.collect(),
            }
        });
        Chart {
            title: self.title.to_owned(),
            note: format!(
                "{note}; logarithmic scale, medians; {}, {}",
                results.processor, results.place
            ),
            mark: |value| value.to_string(),
            cases: cases.collect(),
        }
    }
}

fn none() -> String {
    "-".to_owned()
}

fn spread(spread: Spread) -> String {
    let [least, median, most] =
        [spread.least, spread.median, spread.most].map(|value| format!("{value:.2}"));
    format!("{median} ({least}..{most})")
}
