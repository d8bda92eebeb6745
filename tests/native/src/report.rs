// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The tables of a run, and its charts.

use vsock_report::chart::{Bar, Case, Chart, OURS, PEER as PEER_COLOUR};
use vsock_report::{Spread, digits, empty_table};

use crate::device::{BASELINE, PEER};
use crate::results::{Cell, Figure, Results, Sample};
use crate::row::{Group, Row};

const MIB: f64 = 1_048_576.0;
const GIB: f64 = 1_073_741_824.0;

/// A column of a table.
struct Column {
    head: &'static str,
    figure: Figure,
    scale: f64,
    /// Whether a column with the ratio to the reference follows.
    compared: bool,
}

const fn plain(head: &'static str, figure: Figure, scale: f64) -> Column {
    Column {
        head,
        figure,
        scale,
        compared: false,
    }
}

const fn compared(head: &'static str, figure: Figure, scale: f64) -> Column {
    Column {
        head,
        figure,
        scale,
        compared: true,
    }
}

/// A table: the rows of a group. Its chart shows the first column that is compared.
struct Sheet {
    group: Group,
    title: &'static str,
    /// The file of its chart, and how to read that.
    chart: &'static str,
    note: &'static str,
    columns: &'static [Column],
}

const SHEETS: [Sheet; 4] = [
    Sheet {
        group: Group::Bulk,
        title: "Bulk",
        chart: "bulk",
        note: "longer is faster",
        columns: &[
            compared("MB/s", Sample::rate, 1e-6),
            compared("CPU s/GiB", Sample::cpu, GIB),
            plain("kicks/MiB", Sample::kicks_each, MIB),
            plain("interrupts/MiB", Sample::interrupts_each, MIB),
            plain("switches/MiB", Sample::switches, MIB),
        ],
    },
    Sheet {
        group: Group::Operations,
        title: "Round trips, requests and connections",
        chart: "operations",
        note: "longer is faster",
        columns: &[
            compared("per second", Sample::rate, 1.0),
            compared("CPU us each", Sample::cpu, 1e6),
            plain("kicks each", Sample::kicks_each, 1.0),
            plain("interrupts each", Sample::interrupts_each, 1.0),
            plain("switches each", Sample::switches, 1.0),
            plain("p50 us", Sample::median, 1e-3),
            compared("p99 us", Sample::p99, 1e-3),
            plain("bulk beside, MB/s", Sample::beside_rate, 1e-6),
        ],
    },
    Sheet {
        group: Group::Packets,
        title: "Packets that come when they come",
        chart: "packets",
        note: "99 of 100 took no longer; shorter is better",
        columns: &[
            compared("p99 us", Sample::p99, 1e-3),
            compared("p50 us", Sample::median, 1e-3),
            plain("max us", Sample::most, 1e-3),
            plain("over 1 ms, %", Sample::slow, 100.0),
            plain("burst p50 us", Sample::burst_median, 1e-3),
            plain("burst p99 us", Sample::burst_p99, 1e-3),
            compared("CPU us each", Sample::cpu, 1e6),
            plain("kicks each", Sample::kicks_each, 1.0),
            plain("interrupts each", Sample::interrupts_each, 1.0),
            plain("switches each", Sample::switches, 1.0),
        ],
    },
    Sheet {
        group: Group::Idle,
        title: "Idle connections, and round trips of 64 B among them",
        chart: "idle",
        note: "longer is faster",
        columns: &[
            plain("core while idle, %", |sample| sample.idle_core, 100.0),
            compared("trips per second", Sample::rate, 1.0),
            compared("CPU us each", Sample::cpu, 1e6),
            plain("p50 us", Sample::median, 1e-3),
            compared("p99 us", Sample::p99, 1e-3),
        ],
    },
];

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
        .filter_map(|sheet| Some((sheet.chart, sheet.chart(results, rows)?.svg()?)))
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
        let mut table = empty_table(&head);
        for (row, cell) in self.cells(results, rows) {
            let reference = results
                .find(&row.name, &results.reference)
                .filter(|_| cell.device != results.reference);
            let mut line = vec![row.name.clone(), cell.device.clone()];
            for column in self.columns {
                let median = cell.median(column.figure);
                line.push(median.map_or_else(none, |median| digits(median * column.scale)));
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

    fn chart(&self, results: &Results, rows: &[Row]) -> Option<Chart> {
        let column = self.columns.iter().find(|column| column.compared)?;
        let cases = self.rows(rows).map(|row| {
            let cells = results.cells.iter().filter(|cell| cell.row == row.name);
            let bars = cells.filter_map(|cell| {
                let value = cell.median(column.figure)? * column.scale;
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
        Some(Chart {
            title: self.title.to_owned(),
            note: format!(
                "{}: {}; logarithmic scale, medians; {}, {}",
                column.head, self.note, results.processor, results.place
            ),
            mark: |value| value.to_string(),
            cases: cases.collect(),
        })
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
