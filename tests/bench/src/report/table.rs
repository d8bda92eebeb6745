// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The tables for a terminal, at most 100 columns wide.

use std::io::{self, Write};

use vsock_report::{GroupedTable, Spread, Table, digits, empty_table as empty};

use crate::report::{compared, rate, ratio};
use crate::results::{Cell, Results};
use crate::suite::{DUPLEX, INNER_1M, INNER_256K, RING_1M, RING_256K, TOKIO, UNIX, Unit, Workload};

/// Where a number was not measured.
const NONE: &str = "-";
/// The bytes for which the costs of a stream are counted.
const MIB: f64 = 1_048_576.0;

/// Writes a table per workload.
pub(crate) fn write_results(out: &mut impl Write, results: &Results) -> io::Result<()> {
    writeln!(
        out,
        "{}, {} cores, {}",
        results.processor, results.cores, results.kernel
    )?;
    writeln!(out, "System calls: {}.", results.counted)?;
    writeln!(
        out,
        "Figures are medians of {} rounds. \"times\" compares rates of the same round:\n\
         the median of the ratios, with the smallest and the largest.",
        results.rounds()
    )?;
    for workload in Workload::ALL {
        if results.of(workload).next().is_some() {
            let (title, table) = (workload.title(), table(results, workload));
            writeln!(out, "\n{title}\n\n{table}")?;
        }
    }
    if !results.idle.is_empty() {
        let (title, table) = ("Idle connections, both ends in one process", idle(results));
        writeln!(out, "\n{title}\n\n{table}")?;
    }
    if !results.idle_loops.is_empty() {
        let (title, table) = ("An event loop with idle streams", idle_loops(results));
        writeln!(out, "\n{title}\n\n{table}")?;
    }
    Ok(())
}

fn table(results: &Results, workload: Workload) -> GroupedTable {
    let unit = workload.unit();
    let (measure, calls, switches, per) = match unit {
        Unit::Bytes => ("speed", "calls\nper MiB", "switches\nper MiB", MIB),
        Unit::Operations => ("time", "calls\neach", "switches\neach", 1.0),
    };
    let limit = match workload {
        Workload::AsyncStream | Workload::AsyncPingPong | Workload::AsyncConnections => {
            "times the\ntokio duplex"
        }
        _ => "times the\nbare ring",
    };
    let headings = [measure, "times the\nunix pair", limit, calls, switches];
    let mut table = GroupedTable::new(&headings);
    let cells: Vec<&Cell> = results.of(workload).collect();
    for cells in cells.chunk_by(|a, b| a.case == b.case) {
        table.group(&cells[0].case);
        for cell in cells {
            let speed = Spread::of(cell.rates()).map(|spread| rate(unit, spread.median));
            let calls = cell.system_calls.map(|calls| digits(calls * per));
            let line = [
                Some(cell.row.clone()),
                speed,
                against(results, cell, Some(UNIX)),
                against(results, cell, own_limit(&cell.row)),
                calls,
                Some(digits(cell.context_switches() * per)),
            ];
            let filled = line.into_iter();
            table.line(filled.map(|figure| figure.unwrap_or_else(|| NONE.to_owned())));
        }
    }
    table
}

/// Returns the bare ring of the same capacity, or for tasks tokio's in-process stream.
fn own_limit(row: &str) -> Option<&'static str> {
    match row {
        INNER_256K => Some(RING_256K),
        INNER_1M => Some(RING_1M),
        TOKIO => Some(DUPLEX),
        _ => None,
    }
}

fn against(results: &Results, cell: &Cell, reference: Option<&str>) -> Option<String> {
    let reference = reference.filter(|reference| *reference != cell.row)?;
    compared(results, cell, reference).map(ratio)
}

fn idle(results: &Results) -> Table {
    let head = [
        "row",
        "connections",
        "resident bytes each",
        "descriptors each",
    ];
    let mut table = empty(&head);
    for cell in &results.idle {
        table.add_row([
            cell.row.clone(),
            cell.idle.connections.to_string(),
            digits(cell.idle.bytes_each()),
            digits(cell.idle.descriptors_each()),
        ]);
    }
    table
}

fn idle_loops(results: &Results) -> Table {
    let mut table = empty(&["row", "streams", "CPU time per second", "wake-ups"]);
    for cell in &results.idle_loops {
        let share = cell.idle.processor_seconds / cell.idle.seconds;
        table.add_row([
            cell.row.clone(),
            cell.idle.streams.to_string(),
            format!("{:.0} us", share * 1e6),
            cell.idle.wakeups.to_string(),
        ]);
    }
    table
}
