// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A chart per workload: one bar per row, grouped by case.

use vsock_report::chart::{Axis, Bar, Case, Chart, Kind, Panel, Value};
use vsock_report::{Spread, digits};

use crate::report::{compared, rate};
use crate::results::{Cell, Results};
use crate::suite::{UNIX, Unit, Workload};

/// Returns the chart of a workload as an SVG document, with the rows that `shown` selects; `None`
/// if none of them was measured.
pub(crate) fn svg(
    results: &Results,
    workload: Workload,
    shown: impl Fn(&str) -> bool,
) -> Option<String> {
    let unit = match workload.unit() {
        Unit::Bytes => "GB/s",
        Unit::Operations => "operations per second",
    };
    let cells: Vec<&Cell> = results
        .of(workload)
        .filter(|cell| shown(&cell.row))
        .collect();
    let cases = cells.chunk_by(|a, b| a.case == b.case).map(|cells| Case {
        name: cells[0].case.clone(),
        bars: cells.iter().filter_map(|cell| bar(results, cell)).collect(),
    });
    let chart = Chart {
        title: workload.title().to_owned(),
        note: format!(
            "Medians of {} rounds on {} cores, {}, {}.",
            results.rounds(),
            results.cores,
            results.processor,
            results.kernel
        ),
        panels: vec![Panel {
            title: format!("{unit}, longer is faster; in brackets: compared with the {UNIX}"),
            axis: Axis::Linear,
        }],
        cases: cases.collect(),
    };
    chart.svg()
}

fn bar(results: &Results, cell: &Cell) -> Option<Bar> {
    let unit = cell.workload.unit();
    let median = Spread::of(cell.rates())?.median;
    let mut figure = rate(unit, median);
    if let Some(ratio) = compared(results, cell, UNIX).filter(|_| cell.row != UNIX) {
        figure += &format!(" ({} times)", digits(ratio.median));
    }
    Some(Bar {
        label: cell.row.clone(),
        kind: match &*cell.row {
            ours if ours.starts_with("vsock-") => Kind::Ours,
            limit if limit.starts_with("bare") || limit.starts_with("two") => Kind::Limit,
            _ => Kind::Other,
        },
        values: vec![Some(Value {
            at: match unit {
                Unit::Bytes => median / 1e9,
                Unit::Operations => median,
            },
            up_to: None,
            figure,
        })],
    })
}
