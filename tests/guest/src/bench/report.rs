// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The tables of a run, at most 100 columns wide.

use vsock_report::{GroupedTable, Table, Verdict, digits, empty_table as empty, figures, median};

use super::results::{Results, Sample};
use super::targets::ratio;
use super::work::{Unit, Work};
use crate::device::Kind;

const GIB: f64 = 1_073_741_824.0;
const MIB: f64 = 1_048_576.0;

/// Returns all tables.
pub(crate) fn text(results: &Results, verdicts: &[Verdict]) -> String {
    format!(
        "\n{}, {}\nFigures are medians of the rounds. \"times\" is the median of the ratios to \
         {}\nin the same round.\n\n\
         Bulk\n\n{}\n\nRound trips and connections\n\n{}\n\n\
         Idle connections (anonymous memory without the guest's)\n\n{}\n\n\
         {}\n",
        results.processor,
        results.kernel,
        Kind::Peer.name(),
        table(results, Unit::Bytes, &BULK),
        table(results, Unit::Operations, &OPERATIONS),
        memory(results),
        figures(verdicts),
    )
}

/// A column's heading, and its figure: of the device, or its ratio to that of vhost-device-vsock.
type Column = (&'static str, Figure);

#[derive(Clone, Copy)]
enum Figure {
    Median(fn(&Sample) -> f64),
    Ratio(fn(&Sample) -> f64),
}

const BULK: [Column; 8] = [
    ("MB/s", Figure::Median(|sample| sample.rate() / 1e6)),
    ("times", Figure::Ratio(Sample::rate)),
    ("CPU\ns/GiB", Figure::Median(|sample| sample.cpu() * GIB)),
    ("times", Figure::Ratio(Sample::cpu)),
    (
        "user\ns/GiB",
        Figure::Median(|sample| sample.device.user / sample.units * GIB),
    ),
    (
        "system\ns/GiB",
        Figure::Median(|sample| sample.device.system / sample.units * GIB),
    ),
    (
        "switches\n/MiB",
        Figure::Median(|sample| sample.device.switches / sample.units * MIB),
    ),
    (
        "host CPU\ns/GiB",
        Figure::Median(|sample| sample.host.cpu / sample.units * GIB),
    ),
];

const OPERATIONS: [Column; 6] = [
    ("per\nsecond", Figure::Median(Sample::rate)),
    ("times", Figure::Ratio(Sample::rate)),
    ("CPU\nus each", Figure::Median(|sample| sample.cpu() * 1e6)),
    ("times", Figure::Ratio(Sample::cpu)),
    (
        "switches\neach",
        Figure::Median(|sample| sample.device.switches / sample.units),
    ),
    (
        "host CPU\nus each",
        Figure::Median(|sample| sample.host.cpu / sample.units * 1e6),
    ),
];

/// A line for each workload of a unit and each device that has done it.
fn table(results: &Results, unit: Unit, columns: &[Column]) -> GroupedTable {
    let headings: Vec<_> = columns.iter().map(|(heading, _)| *heading).collect();
    let mut table = GroupedTable::new(&headings);
    for work in Work::ALL.into_iter().filter(|work| work.unit() == unit) {
        table.group(work.name());
        for kind in Kind::MEASURED {
            let Some(cell) = results.find(work.name(), kind.name()) else {
                continue;
            };
            let figures = columns.iter().map(|(_, figure)| match figure {
                Figure::Median(of) => median(cell.each(of)).map(digits),
                Figure::Ratio(of) => {
                    ratio(results, kind, work, *of).map(|ratio| format!("{ratio:.2}"))
                }
            });
            let figures = figures.map(|figure| figure.unwrap_or_else(|| "-".to_owned()));
            table.line([kind.name().to_owned()].into_iter().chain(figures));
        }
    }
    table
}

fn memory(results: &Results) -> Table {
    let mut table = empty(&["connections", "device", "bytes each", "core used"]);
    for cell in &results.memory {
        table.add_row([
            cell.what.to_owned(),
            cell.device.to_owned(),
            format!("{:.0}", cell.cost.bytes_each),
            format!("{:.1} %", cell.cost.core * 100.0),
        ]);
    }
    table
}
