// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The parts of `docs/benchmarks.md` that this bench writes.

use std::path::Path;

use anyhow::{Result, ensure};
use vsock_report::{Spread, digits, publish};

use super::sheets::{CPU, IDLE_CORE, P50, RATE, latency_of};
use super::{NONE, chart, compared, starred};
use crate::aims::{self, AimOf};
use crate::device::{LIBRARY, PROGRAM, VHOST_DEVICE_VSOCK};
use crate::results::{Figure, Results};
use crate::row::{Row, Work};
use crate::shape::Shape;

/// Writes the tables and charts of a run of everything into the directory `docs`.
pub(crate) fn write(results: &Results, rows: &[Row], docs: &Path) -> Result<String> {
    ensure!(
        results.reference == VHOST_DEVICE_VSOCK,
        "the last run compares with {}; run the bench without --baseline",
        results.reference
    );
    let parts = [
        ("device-summary", summary(results, rows)),
        ("device", tables(results, rows)),
    ];
    let mut charts = chart::all(results, rows);
    charts.retain(|(name, _)| *name != "bench-device-idle");
    publish(docs, &parts, &charts)
}

fn tables(results: &Results, rows: &[Row]) -> String {
    format!(
        "{}, {}, {}; medians of {} rounds.\n\n{}\n{}\n{}",
        results.processor,
        results.place,
        results.kernel,
        results.rounds(),
        rates(results, rows),
        latencies(results, rows),
        idle(results, rows)
    )
}

fn rates(results: &Results, rows: &[Row]) -> String {
    let mut text = "| work | vhost-device-vsock | program: rate | CPU | library: rate | CPU |\n\
                    |---|---:|---:|---:|---:|---:|\n"
        .to_owned();
    for row in rows.iter().filter(|row| row.guest != Shape::RECENT) {
        let unit = match row.work {
            Work::Bulk { .. } => (1e6, " MB/s"),
            Work::Requests { .. } | Work::Connects { .. } => (1.0, "/s"),
            Work::Turns { .. } if row.guest == Shape::USUAL => (1.0, "/s"),
            Work::Turns { .. } | Work::Packets { .. } | Work::Idle { .. } => continue,
        };
        let figures = [(RATE, aims::rate as AimOf), (CPU, aims::cpu)];
        let ratios = [PROGRAM, LIBRARY].map(|device| {
            let ratios = figures.map(|(figure, aim)| ratio(results, row, device, figure, aim));
            ratios.join(" | ")
        });
        let reference = median(results, row, VHOST_DEVICE_VSOCK, RATE)
            .map_or_else(none, |rate| format!("{}{}", digits(rate / unit.0), unit.1));
        let name = row.name.replace("writes of ", "");
        text += &format!("| {name} | {reference} | {} |\n", ratios.join(" | "));
    }
    text
}

fn latencies(results: &Results, rows: &[Row]) -> String {
    let mut text =
        "| packets: p50, p99 (us) | vhost-device-vsock | program | CPU | library | CPU |\n\
                    |---|---:|---:|---:|---:|---:|\n"
            .to_owned();
    for row in rows.iter().filter(|row| row.guest == Shape::USUAL) {
        if !matches!(row.work, Work::Packets { .. }) {
            continue;
        }
        let (p50, p99) = latency_of(row.work);
        let reference = [p50, p99].map(|figure| {
            median(results, row, VHOST_DEVICE_VSOCK, figure).map_or_else(none, digits)
        });
        let ratios = [PROGRAM, LIBRARY].map(|device| {
            let ratio = |figure, aim| ratio(results, row, device, figure, aim);
            let (p50, p99) = (ratio(p50, aims::p50), ratio(p99, aims::p99));
            format!("{p50}, {p99} | {}", ratio(CPU, aims::cpu))
        });
        let (reference, ratios) = (reference.join(", "), ratios.join(" | "));
        text += &format!("| {} | {reference} | {ratios} |\n", row.name);
    }
    text
}

fn idle(results: &Results, rows: &[Row]) -> String {
    // The row with the most connections is the last one.
    let row = rows
        .iter()
        .rfind(|row| matches!(row.work, Work::Idle { .. }));
    let Some(row) = row else { return String::new() };
    let [theirs, program, library] = [VHOST_DEVICE_VSOCK, PROGRAM, LIBRARY].map(|device| {
        median(results, row, device, IDLE_CORE).map_or_else(none, |share| format!("{share:.2} %"))
    });
    format!(
        "CPU time {}: program {program} of a core, library {library},\n\
         vhost-device-vsock {theirs}.\n",
        row.name
    )
}

fn summary(results: &Results, rows: &[Row]) -> String {
    // From the worst to the best row, of the usual guest.
    let of = |device, figure: Figure, holds: fn(&Work) -> bool| {
        let rows = rows.iter();
        let rows = rows.filter(|row| holds(&row.work) && row.guest == Shape::USUAL);
        let ratios = rows.filter_map(|row| {
            let cell = results.find(&row.name, device)?;
            Some(compared(results, cell, figure)?.median)
        });
        Spread::of(ratios).map_or_else(none, |ratios| {
            let [least, most] = [ratios.least, ratios.most].map(short);
            format!("{least} to {most}")
        })
    };
    let bulk: fn(&Work) -> bool = |work| matches!(work, Work::Bulk { .. });
    let turns: fn(&Work) -> bool = |work| matches!(work, Work::Turns { .. });
    let packets: fn(&Work) -> bool =
        |work| matches!(work, Work::Packets { plan, .. } if plan.burst <= 100);
    let mut text = String::new();
    for (device, name) in [
        (PROGRAM, "The program `vsock-vhost-user`"),
        (LIBRARY, "The same device in a VMM's process"),
    ] {
        text += &format!(
            "- {name}: {} times the throughput of\n  vhost-device-vsock 0.3.0 at {} of the CPU \
             time, {} times the round trips,\n  {} of the median latency.\n",
            of(device, RATE, bulk),
            of(device, CPU, bulk),
            of(device, RATE, turns),
            of(device, P50, packets),
        );
    }
    text
}

/// Returns a ratio for a sentence.
fn short(ratio: f64) -> String {
    if ratio < 1.0 {
        format!("{ratio:.2}")
    } else {
        format!("{ratio:.1}")
    }
}

fn ratio(results: &Results, row: &Row, device: &str, figure: Figure, aim: AimOf) -> String {
    let ratio = results.find(&row.name, device).and_then(|cell| {
        let ratio = compared(results, cell, figure)?;
        Some(starred(row, cell, ratio, aim))
    });
    ratio.unwrap_or_else(none)
}

fn median(results: &Results, row: &Row, device: &str, figure: Figure) -> Option<f64> {
    results.find(&row.name, device)?.median(figure)
}

fn none() -> String {
    NONE.to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::tests::measured;
    use super::rates;
    use crate::row;

    #[test]
    fn a_star_marks_a_missed_aim() {
        let rows = row::all(1);
        for (factor, expected) in [
            (
                2.0,
                "| round trips of 64 B, guest asks | 50000/s | 2.00 | - | 2.00* | - |",
            ),
            (
                3.0,
                "| round trips of 64 B, guest asks | 33333/s | 3.00 | - | 3.00 | - |",
            ),
        ] {
            let text = rates(&measured(&rows, factor), &rows);
            assert!(text.contains(expected), "{text}");
        }
    }
}
