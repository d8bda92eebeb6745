// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The tables of a run, and its charts.

use vsock_report::chart::{Bar, Case, Chart, OURS, PEER as PEER_COLOUR};
use vsock_report::{Spread, digits, empty_table};

use crate::device::{BASELINE, PEER};
use crate::results::{Cell, Figure, Results};
use crate::row::{Row, Work};

const MIB: f64 = 1_048_576.0;
const GIB: f64 = 1_073_741_824.0;

/// A column of a table, and whether one with the ratio to the reference follows.
#[derive(Clone, Copy)]
enum Column {
    Plain(&'static str, Figure),
    Compared(&'static str, Figure),
}

use Column::{Compared, Plain};

/// A table, and its chart, which shows the first column that is compared.
struct Sheet {
    title: &'static str,
    /// The rows that are in it.
    holds: fn(&Work) -> bool,
    /// The file of its chart, and how to read that.
    chart: &'static str,
    note: &'static str,
    columns: &'static [Column],
}

/// Microseconds, of nanoseconds.
fn micros(nanos: Option<u64>) -> Option<f64> {
    Some(nanos? as f64 / 1e3)
}

const PER_SECOND: Figure = |it| Some(it.units / it.seconds);
const CPU_EACH: Column = Compared("CPU us each", |it| Some(it.device.cpu * 1e6 / it.units));
const KICKS_EACH: Column = Plain("kicks each", |it| Some(it.kicks / it.units));
const INTERRUPTS_EACH: Column = Plain("interrupts each", |it| Some(it.interrupts / it.units));
const SWITCHES_EACH: Column = Plain("switches each", |it| Some(it.device.switches / it.units));
const P50: Figure = |it| micros(it.latencies.packets.map(|packets| packets.median));
const P99: Figure = |it| micros(it.latencies.packets.map(|packets| packets.p99));

const SHEETS: [Sheet; 4] = [
    Sheet {
        title: "Bulk",
        holds: |work| matches!(work, Work::Bulk { .. }),
        chart: "bulk",
        note: "longer is faster",
        columns: &[
            Compared("MB/s", |it| Some(it.units / it.seconds / 1e6)),
            Compared("CPU s/GiB", |it| Some(it.device.cpu * GIB / it.units)),
            Plain("kicks/MiB", |it| Some(it.kicks * MIB / it.units)),
            Plain("interrupts/MiB", |it| Some(it.interrupts * MIB / it.units)),
            Plain("switches/MiB", |it| {
                Some(it.device.switches * MIB / it.units)
            }),
        ],
    },
    Sheet {
        title: "Round trips, requests and connections",
        holds: |work| {
            use Work::{Connects, Requests, Turns};
            matches!(work, Turns { .. } | Requests { .. } | Connects { .. })
        },
        chart: "operations",
        note: "longer is faster",
        columns: &[
            Compared("per second", PER_SECOND),
            CPU_EACH,
            KICKS_EACH,
            INTERRUPTS_EACH,
            SWITCHES_EACH,
            Plain("p50 us", P50),
            Compared("p99 us", P99),
            Plain("bulk beside, MB/s", |it| {
                Some(it.beside? / it.seconds / 1e6)
            }),
        ],
    },
    Sheet {
        title: "Packets that come when they come",
        holds: |work| matches!(work, Work::Packets { .. }),
        chart: "packets",
        note: "99 of 100 took no longer; shorter is better",
        columns: &[
            Compared("p99 us", P99),
            Compared("p50 us", P50),
            Plain("max us", |it| {
                micros(it.latencies.packets.map(|packets| packets.most))
            }),
            Plain("over 1 ms, %", |it| {
                Some(it.latencies.packets?.slow * 100.0)
            }),
            Plain("burst p50 us", |it| {
                micros(it.latencies.bursts.map(|bursts| bursts.median))
            }),
            Plain("burst p99 us", |it| {
                micros(it.latencies.bursts.map(|bursts| bursts.p99))
            }),
            CPU_EACH,
            KICKS_EACH,
            INTERRUPTS_EACH,
            SWITCHES_EACH,
        ],
    },
    Sheet {
        title: "Idle connections, and round trips of 64 B among them",
        holds: |work| matches!(work, Work::Idle { .. }),
        chart: "idle",
        note: "longer is faster",
        columns: &[
            Plain("core while idle, %", |it| Some(it.idle_core? * 100.0)),
            Compared("trips per second", PER_SECOND),
            CPU_EACH,
            Plain("p50 us", P50),
            Compared("p99 us", P99),
        ],
    },
];

/// Everything, as a person reads it.
pub(crate) fn text(results: &Results, rows: &[Row]) -> String {
    let mut text = format!(
        "{}, {}, {}\nThe guest: {:?}.\n\
         Medians of the rounds; ratios (x) are to the device \"{}\" in the same round: the \
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
    let charts = SHEETS
        .iter()
        .map(|sheet| (sheet, sheet.chart(results, rows)));
    charts
        .filter_map(|(sheet, chart)| Some((sheet.chart, chart?.svg()?)))
        .collect()
}

impl Sheet {
    fn rows<'a>(&self, rows: &'a [Row]) -> impl Iterator<Item = &'a Row> {
        let holds = self.holds;
        rows.iter().filter(move |row| holds(&row.work))
    }

    fn table(&self, results: &Results, rows: &[Row]) -> String {
        let mut head = vec!["row", "device"];
        for column in self.columns {
            match *column {
                Plain(name, _) => head.push(name),
                Compared(name, _) => head.extend([name, "x"]),
            }
        }
        head.push("failed");
        let mut table = empty_table(&head);
        for row in self.rows(rows) {
            let is_reference = |cell: &&Cell| cell.device == results.reference;
            let reference = results.of_row(&row.name).find(is_reference);
            for cell in results.of_row(&row.name) {
                table.add_row(self.line(cell, reference));
            }
        }
        if table.row_count() == 0 {
            return String::new();
        }
        format!("\n{}\n\n{table}\n", self.title)
    }

    fn line(&self, cell: &Cell, reference: Option<&Cell>) -> Vec<String> {
        let reference = reference.filter(|reference| reference.device != cell.device);
        let mut line = vec![Some(cell.row.clone()), Some(cell.device.to_owned())];
        for column in self.columns {
            let (Plain(_, figure) | Compared(_, figure)) = *column;
            line.push(cell.median(figure).map(digits));
            if let Compared(..) = column {
                line.push(reference.and_then(|other| Some(spread(cell.ratio(other, figure)?))));
            }
        }
        let failures = cell.failures();
        line.push((failures > 0).then(|| failures.to_string()));
        let filled = line.into_iter();
        filled
            .map(|figure| figure.unwrap_or_else(|| "-".to_owned()))
            .collect()
    }

    fn chart(&self, results: &Results, rows: &[Row]) -> Option<Chart> {
        let (head, figure) = self.columns.iter().find_map(|column| match *column {
            Compared(head, figure) => Some((head, figure)),
            Plain(..) => None,
        })?;
        let bar = |cell: &Cell| {
            let value = cell.median(figure)?;
            Some(Bar {
                label: cell.device.to_owned(),
                value,
                figure: digits(value),
                colour: match cell.device {
                    PEER | BASELINE => PEER_COLOUR,
                    _ => OURS,
                },
            })
        };
        let cases = self.rows(rows).map(|row| Case {
            name: row.name.clone(),
            bars: results.of_row(&row.name).filter_map(bar).collect(),
        });
        Some(Chart {
            title: self.title.to_owned(),
            note: format!(
                "{head}: {}; logarithmic scale, medians; {}, {}",
                self.note, results.processor, results.place
            ),
            mark: |value| value.to_string(),
            cases: cases.collect(),
        })
    }
}

fn spread(spread: Spread) -> String {
    let Spread {
        least,
        median,
        most,
    } = spread;
    format!("{median:.2} ({least:.2}..{most:.2})")
}
