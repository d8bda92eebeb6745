// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The tables of a run.

use vsock_report::{Table, Verdict, digits, empty_table as empty, figures, median};

use super::results::{Cell, Results, Sample};
use super::targets::ratio;
use super::work::{Unit, Work};
use crate::device::Kind;

const GIB: f64 = 1_073_741_824.0;
const MIB: f64 = 1_048_576.0;

/// Everything, as a person reads it.
pub(crate) fn text(results: &Results, verdicts: &[Verdict]) -> String {
    format!(
        "\n{}, {}\nMedians of the rounds; ratios (x) are medians of the rounds' ratios to {}.\n\n\
         Bulk\n\n{}\n\nRound trips and connections\n\n{}\n\n\
         Connections that wait (anonymous memory, without the guest's)\n\n{}\n\n\
         {}\n",
        results.processor,
        results.kernel,
        Kind::Peer.name(),
        bulk(results),
        operations(results),
        memory(results),
        figures(verdicts),
    )
}

fn bulk(results: &Results) -> Table {
    let mut table = empty(&[
        "workload",
        "device",
        "MB/s",
        "x",
        "CPU s/GiB",
        "x",
        "user s/GiB",
        "system s/GiB",
        "switches/MiB",
        "host CPU s/GiB",
    ]);
    each(results, Unit::Bytes, |kind, work, cell| {
        table.add_row([
            work.name().to_owned(),
            kind.name().to_owned(),
            middle(cell, |sample| sample.rate() / 1e6),
            times(ratio(results, kind, work, Sample::rate)),
            middle(cell, |sample| sample.cpu() * GIB),
            times(ratio(results, kind, work, Sample::cpu)),
            middle(cell, |sample| sample.device.user / sample.units * GIB),
            middle(cell, |sample| sample.device.system / sample.units * GIB),
            middle(cell, |sample| sample.device.switches / sample.units * MIB),
            middle(cell, |sample| sample.host.cpu / sample.units * GIB),
        ]);
    });
    table
}

fn operations(results: &Results) -> Table {
    let mut table = empty(&[
        "workload",
        "device",
        "per second",
        "x",
        "CPU us each",
        "x",
        "switches each",
        "host CPU us each",
    ]);
    each(results, Unit::Operations, |kind, work, cell| {
        table.add_row([
            work.name().to_owned(),
            kind.name().to_owned(),
            middle(cell, Sample::rate),
            times(ratio(results, kind, work, Sample::rate)),
            middle(cell, |sample| sample.cpu() * 1e6),
            times(ratio(results, kind, work, Sample::cpu)),
            middle(cell, |sample| sample.device.switches / sample.units),
            middle(cell, |sample| sample.host.cpu / sample.units * 1e6),
        ]);
    });
    table
}

fn memory(results: &Results) -> Table {
    let mut table = empty(&["connections", "device", "bytes each", "core used"]);
    for cell in &results.memory {
        table.add_row([
            cell.what.to_owned(),
            cell.device.to_owned(),
            format!("{:.0}", cell.held.bytes_each),
            format!("{:.1} %", cell.held.core * 100.0),
        ]);
    }
    table
}

/// Each cell of a unit's workloads.
fn each(results: &Results, unit: Unit, mut row: impl FnMut(Kind, Work, &Cell)) {
    for work in Work::ALL.into_iter().filter(|work| work.unit() == unit) {
        for kind in Kind::MEASURED {
            if let Some(cell) = results.find(work.name(), kind.name()) {
                row(kind, work, cell);
            }
        }
    }
}

fn middle(cell: &Cell, figure: impl Fn(&Sample) -> f64) -> String {
    median(cell.each(figure)).map_or_else(none, digits)
}

fn times(ratio: Option<f64>) -> String {
    ratio.map_or_else(none, |ratio| format!("{ratio:.2}"))
}

fn none() -> String {
    "-".to_owned()
}
