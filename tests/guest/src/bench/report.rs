// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The tables of a run.

use vsock_report::{Table, Verdict, digits, empty_table as empty, figures, median};

use super::results::{Results, Sample};
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
        table(results, Unit::Bytes, &BULK),
        table(results, Unit::Operations, &OPERATIONS),
        memory(results),
        figures(verdicts),
    )
}

/// A column's heading, and its figure: of the device's samples, or as a ratio to the peer's.
type Column = (&'static str, Figure);

#[derive(Clone, Copy)]
enum Figure {
    Median(fn(&Sample) -> f64),
    Ratio(fn(&Sample) -> f64),
}

const BULK: [Column; 8] = [
    ("MB/s", Figure::Median(|sample| sample.rate() / 1e6)),
    ("x", Figure::Ratio(Sample::rate)),
    ("CPU s/GiB", Figure::Median(|sample| sample.cpu() * GIB)),
    ("x", Figure::Ratio(Sample::cpu)),
    (
        "user s/GiB",
        Figure::Median(|sample| sample.device.user / sample.units * GIB),
    ),
    (
        "system s/GiB",
        Figure::Median(|sample| sample.device.system / sample.units * GIB),
    ),
    (
        "switches/MiB",
        Figure::Median(|sample| sample.device.switches / sample.units * MIB),
    ),
    (
        "host CPU s/GiB",
        Figure::Median(|sample| sample.host.cpu / sample.units * GIB),
    ),
];

const OPERATIONS: [Column; 6] = [
    ("per second", Figure::Median(Sample::rate)),
    ("x", Figure::Ratio(Sample::rate)),
    ("CPU us each", Figure::Median(|sample| sample.cpu() * 1e6)),
    ("x", Figure::Ratio(Sample::cpu)),
    (
        "switches each",
        Figure::Median(|sample| sample.device.switches / sample.units),
    ),
    (
        "host CPU us each",
        Figure::Median(|sample| sample.host.cpu / sample.units * 1e6),
    ),
];

/// A line for each workload of a unit and each device that has done it.
fn table(results: &Results, unit: Unit, columns: &[Column]) -> Table {
    let headings = columns.iter().map(|(heading, _)| *heading);
    let headings: Vec<_> = ["workload", "device"].into_iter().chain(headings).collect();
    let mut table = empty(&headings);
    for work in Work::ALL.into_iter().filter(|work| work.unit() == unit) {
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
            let names = [work.name().to_owned(), kind.name().to_owned()];
            table.add_row(names.into_iter().chain(figures));
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
