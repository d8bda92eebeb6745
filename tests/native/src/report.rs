// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What was measured, for people: tables for a terminal, charts, and the parts of the page in the
//! documentation.

mod chart;
mod page;
mod sheets;

use vsock_report::{GroupedTable, Spread, digits};

pub(crate) use self::chart::all as charts;
pub(crate) use self::page::write as publish;
use self::sheets::{Column, SHEETS, Sheet};
use crate::aims::AimOf;
use crate::device::BASELINE;
use crate::results::{Cell, Figure, Results};
use crate::row::Row;

/// Where a number was not measured.
const NONE: &str = "-";

/// Returns all tables, at most 100 columns wide.
pub(crate) fn text(results: &Results, rows: &[Row]) -> String {
    let mut text = format!(
        "{}, {}, {}\nFigures are medians of {} rounds. \"times\" compares a figure with that of \
         {}\nin the same round: the median of the ratios, with the smallest and the largest. A \
         star marks a\nmissed aim.\n",
        results.processor,
        results.kernel,
        results.place,
        results.rounds(),
        results.reference
    );
    if let Some(commit) = &results.baseline {
        text += &format!("The device \"{BASELINE}\" is our program of {commit}.\n");
    }
    for sheet in &SHEETS {
        let table = sheet.table(results, rows);
        if !table.is_empty() {
            text += &format!("\n{}\n\n{table}\n", sheet.title);
        }
    }
    let failed = results.cells.iter().filter(|cell| cell.failures() > 0);
    for cell in failed {
        text += &format!(
            "\nfailed: {}, {}, in {} of {} rounds",
            cell.device,
            cell.row,
            cell.failures(),
            results.rounds()
        );
    }
    text
}

impl Sheet {
    fn rows<'a>(&self, rows: &'a [Row]) -> impl Iterator<Item = &'a Row> {
        let holds = self.holds;
        rows.iter().filter(move |row| holds(&row.work))
    }

    fn table(&self, results: &Results, rows: &[Row]) -> GroupedTable {
        let mut head = Vec::new();
        for column in self.columns {
            match *column {
                Column::Plain(name, _) => head.push(name),
                Column::Compared(name, ..) => head.extend([name, "times"]),
            }
        }
        let mut table = GroupedTable::new(&head);
        for row in self.rows(rows) {
            let cells: Vec<&Cell> = results.of_row(&row.name).collect();
            if !cells.is_empty() {
                table.group(&row.name);
            }
            for cell in cells {
                table.line(self.line(results, row, cell));
            }
        }
        table
    }

    fn line(&self, results: &Results, row: &Row, cell: &Cell) -> Vec<String> {
        let mut line = vec![Some(cell.device.clone())];
        for column in self.columns {
            let (Column::Plain(_, figure) | Column::Compared(_, figure, _)) = *column;
            line.push(cell.median(figure).map(digits));
            if let Column::Compared(_, figure, aim) = *column {
                let ratio = compared(results, cell, figure);
                let text = |ratio: Spread| {
                    let Spread { least, most, .. } = ratio;
                    format!("{} ({least:.2}..{most:.2})", starred(row, cell, ratio, aim))
                };
                line.push(ratio.map(text));
            }
        }
        let filled = line.into_iter();
        filled
            .map(|figure| figure.unwrap_or_else(|| NONE.to_owned()))
            .collect()
    }
}

/// Returns the ratio of a figure to that of the reference, which itself has none.
fn compared(results: &Results, cell: &Cell, figure: Figure) -> Option<Spread> {
    let reference = results.find(&cell.row, &results.reference)?;
    if reference.device == cell.device {
        return None;
    }
    cell.ratio(reference, figure)
}

/// Returns the median of a ratio, with a star if it misses its aim.
fn starred(row: &Row, cell: &Cell, ratio: Spread, aim: AimOf) -> String {
    let median = ratio.median;
    let reached = aim(row.work, &cell.device).is_none_or(|aim| aim.is_reached(median));
    format!("{median:.2}{}", if reached { "" } else { "*" })
}

#[cfg(test)]
mod tests {
    use super::text;
    use crate::device::{LIBRARY, PROGRAM, VHOST_DEVICE_VSOCK};
    use crate::latency::{Latencies, Latency};
    use crate::results::{Results, Sample};
    use crate::row::{self, Row};
    use crate::shape::Shape;

    /// Every row on three devices, ours `factor` times as fast as vhost-device-vsock.
    pub(super) fn measured(rows: &[Row], factor: f64) -> Results {
        let latency = Latency {
            median: 98_700,
            p99: 12_345_000,
            most: 98_765_000,
            slow: 0.123,
        };
        let mut results = Results {
            schema: 0,
            processor: String::new(),
            kernel: String::new(),
            place: String::new(),
            guest: Shape::USUAL,
            baseline: None,
            reference: VHOST_DEVICE_VSOCK.to_owned(),
            cells: Vec::new(),
        };
        for row in rows {
            for device in [PROGRAM, LIBRARY, VHOST_DEVICE_VSOCK] {
                let is_reference = device == VHOST_DEVICE_VSOCK;
                let sample = Sample {
                    units: 1e6,
                    seconds: if is_reference { 10.0 * factor } else { 10.0 },
                    device: Default::default(),
                    kicks: 123_456.0,
                    interrupts: 123_456.0,
                    latencies: Latencies {
                        packets: Some(latency),
                        bursts: Some(latency),
                    },
                    beside: Some(1e9),
                    idle_core: Some(0.01),
                };
                results.add(&row.name, device, Some(sample));
            }
        }
        results
    }

    #[test]
    fn tables_are_at_most_100_columns_wide() {
        let rows = row::all(1);
        let text = text(&measured(&rows, 12.34), &rows);
        for line in text.lines() {
            assert!(line.chars().count() <= 100, "{line}");
        }
        assert!(text.contains("12.34 (12.34..12.34)"), "{text}");
    }
}
