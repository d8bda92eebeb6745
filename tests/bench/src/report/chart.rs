// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A chart per workload: one bar per row, grouped by case.

use vsock_report::chart::{Bar, Case, Chart, LIMIT, OURS, PEER};
use vsock_report::{Spread, digits};

use crate::report::rate;
use crate::results::{Cell, Results};
use crate::suite::{UNIX, Unit, Workload};

/// The chart of a workload as an SVG document; `None` if it was not measured.
pub(crate) fn svg(results: &Results, workload: Workload) -> Option<String> {
    let (axis, mark): (_, fn(f64) -> String) = match workload.unit() {
        Unit::Bytes => ("MB/s", |value| format!("{}", value / 1e6)),
        Unit::Operations => ("operations per second", |value| format!("{value}")),
    };
    let cells: Vec<&Cell> = results.of(workload).collect();
    let cases = cells.chunk_by(|a, b| a.case == b.case).map(|cells| Case {
        name: cells[0].case.clone(),
        bars: cells.iter().filter_map(|cell| bar(results, cell)).collect(),
    });
    let chart = Chart {
        title: workload.title().to_owned(),
        note: format!(
            "{axis}; {}; longer is faster, logarithmic scale, medians",
            results.processor
        ),
        mark,
        cases: cases.collect(),
    };
    chart.svg()
}

fn bar(results: &Results, cell: &Cell) -> Option<Bar> {
    let value = Spread::of(cell.rates())?.median;
    let mut figure = rate(cell.workload.unit(), value);
    let reference = results.cell(cell.workload, &cell.case, UNIX);
    let ratio = reference.and_then(|unix| Spread::of_ratios(&cell.rates(), &unix.rates()));
    if let Some(ratio) = ratio.filter(|_| cell.row != UNIX) {
        figure += &format!(" ({} x)", digits(ratio.median));
    }
    Some(Bar {
        label: cell.row.clone(),
        value,
        figure,
        colour: match &*cell.row {
            ours if ours.starts_with("vsock-inner") => OURS,
            limit if limit.starts_with("bare") || limit.starts_with("two") => LIMIT,
            _ => PEER,
        },
    })
}
