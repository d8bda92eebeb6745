// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io::{self, Write};

use vsock_report::{Spread, Table, digits, empty_table as empty};

use crate::report::{rate, ratio};
use crate::results::{Cell, Results};
use crate::suite::{DUPLEX, INNER_1M, INNER_256K, RING_1M, RING_256K, TOKIO, UNIX, Unit, Workload};

/// Where a number was not measured.
const NONE: &str = "-";
/// Bytes of the unit in which costs of a stream are told.
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
        "Ratios are medians of the rounds' ratios, with the least and the greatest."
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
        let (title, table) = ("A loop all of whose streams are idle", idle_loops(results));
        writeln!(out, "\n{title}\n\n{table}")?;
    }
    Ok(())
}

fn table(results: &Results, workload: Workload) -> Table {
    let unit = workload.unit();
    let (measure, calls, switches) = match unit {
        Unit::Bytes => ("speed", "calls/MiB", "switches/MiB"),
        Unit::Operations => ("each", "calls each", "switches each"),
    };
    let limit = match workload {
        Workload::AsyncStream | Workload::AsyncPingPong | Workload::AsyncConnections => "x duplex",
        _ => "x ring",
    };
    let mut table = empty(&["case", "row", measure, "x unix", limit, calls, switches]);
    let per = match unit {
        Unit::Bytes => MIB,
        Unit::Operations => 1.0,
    };
    for cell in results.of(workload) {
        let speed = Spread::of(cell.rates()).map(|spread| rate(unit, spread.median));
        let system_calls = cell.system_calls.map(|calls| digits(calls * per));
        table.add_row([
            cell.case.clone(),
            cell.row.clone(),
            speed.unwrap_or_else(|| NONE.to_owned()),
            against(results, cell, Some(UNIX)),
            against(results, cell, own_limit(&cell.row)),
            system_calls.unwrap_or_else(|| NONE.to_owned()),
            digits(cell.context_switches() * per),
        ]);
    }
    table
}

/// The bare ring of the same capacity, and for tasks the stream of tokio that never leaves the
/// process.
fn own_limit(row: &str) -> Option<&'static str> {
    match row {
        INNER_256K => Some(RING_256K),
        INNER_1M => Some(RING_1M),
        TOKIO => Some(DUPLEX),
        _ => None,
    }
}

fn against(results: &Results, cell: &Cell, reference: Option<&str>) -> String {
    let spread = reference
        .filter(|reference| *reference != cell.row)
        .and_then(|reference| results.cell(cell.workload, &cell.case, reference))
        .and_then(|reference| Spread::of_ratios(&cell.rates(), &reference.rates()));
    spread.map_or_else(|| NONE.to_owned(), ratio)
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
    let mut table = empty(&["row", "streams", "processor time per second", "wake-ups"]);
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
