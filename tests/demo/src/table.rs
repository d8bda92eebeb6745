// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The table at the end.

use std::fmt::Write as _;

use vsock_muxer::MuxerCounters;
use vsock_report::{digits, median};

use crate::job::Outcome;
use crate::way::Way;

const MIB: f64 = 1_048_576.0;

/// A line for each way with the medians of its rounds, and notes. Everything is counted there and
/// back, for a payload of `len` bytes.
pub(crate) fn render(len: u64, rows: &[(Way, Vec<Outcome>)]) -> String {
    let bytes = number(len) * 2.0;
    let mut text = format!(
        "{:<33}{:>9}{:>7}{:>11}{:>14}{:>13}{:>12}\n",
        "way", "seconds", "MB/s", "CPU s/GiB", "switches/MiB", "packets/MiB", "credit/MiB"
    );
    for (way, outcomes) in rows {
        let middle = |figure: &dyn Fn(&Outcome) -> f64| {
            median(outcomes.iter().map(figure)).unwrap_or_default()
        };
        // Nothing can be divided by the bytes of an empty file.
        let per_mib = |figure: &dyn Fn(&Outcome) -> f64, scale: f64| match len {
            0 => "-".to_owned(),
            _ => digits(middle(figure) / bytes * MIB * scale),
        };
        let guest = outcomes.iter().any(|outcome| outcome.counters.is_some());
        let counted = |count: fn(&MuxerCounters) -> u64| match guest {
            false => "-".to_owned(),
            true => per_mib(
                &|outcome| number(outcome.counters.as_ref().map_or(0, count)),
                1.0,
            ),
        };
        let seconds = middle(&|outcome| outcome.trip.time.as_secs_f64());
        let cpu = per_mib(&|outcome| outcome.trip.usage.cpu.as_secs_f64(), 1024.0);
        let switches = per_mib(&|outcome| number(outcome.trip.usage.switches), 1.0);
        let packets = counted(|count| count.packets_from_guest + count.packets_to_guest);
        let updates =
            counted(|count| count.credit_updates_from_guest + count.credit_updates_to_guest);
        // Writing to a string cannot fail.
        _ = writeln!(
            text,
            "{:<33}{seconds:>9.3}{:>7.0}{cpu:>11}{switches:>14}{packets:>13}{updates:>12}",
            way.name(),
            bytes / seconds.max(1e-9) / 1e6,
        );
    }
    text.push_str(NOTES);
    text
}

const NOTES: &str = "
MB/s and everything per MiB counts both directions. CPU and context switches are those of the whole
process. The rows with a simulated guest are slower because they do more: the device's thread also
plays the guest, whose kernel and program copy each byte again, and moves every byte in packets.
";

#[expect(clippy::cast_precision_loss, reason = "a count of less than 2^52")]
fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use vsock_muxer::MuxerCounters;
    use vsock_report::{Trip, Usage};

    use super::render;
    use crate::job::Outcome;
    use crate::way::Way;

    fn outcome(millis: u64) -> Outcome {
        let trip = Trip {
            time: Duration::from_millis(millis),
            usage: Usage {
                cpu: Duration::from_millis(millis),
                switches: millis,
            },
            ..Trip::default()
        };
        Outcome {
            trip,
            counters: None,
        }
    }

    fn row(len: u64, outcomes: Vec<Outcome>) -> Vec<String> {
        let text = render(len, &[(Way::Inner, outcomes)]);
        let line = text.lines().nth(1).unwrap();
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn the_table_has_the_medians() {
        let mut outcomes = [900, 100, 200].map(outcome).to_vec();
        let without = ["vsock-inner", "0.200", "10", "102", "100", "-", "-"];
        assert_eq!(row(1 << 20, outcomes.clone()), without);
        for (packets, outcome) in (1..).zip(&mut outcomes) {
            let mut counters = MuxerCounters::default();
            counters.packets_to_guest = packets;
            counters.credit_updates_from_guest = 10 * packets;
            outcome.counters = Some(counters);
        }
        let with = ["vsock-inner", "0.200", "10", "102", "100", "1.00", "10.0"];
        assert_eq!(row(1 << 20, outcomes), with);
    }

    #[test]
    fn an_empty_file_has_no_figures_per_byte() {
        assert_eq!(row(0, vec![outcome(1)])[3..], ["-"; 4]);
    }

    #[test]
    fn the_table_fits_100_columns() {
        let mut outcome = outcome(9_999_999);
        outcome.counters = Some(MuxerCounters::default());
        let rows = Way::ALL.map(|way| (way, vec![outcome]));
        let text = render(64 << 20, &rows);
        let widest = text.lines().map(str::len).max().unwrap();
        assert!(widest <= 100, "{widest} columns:\n{text}");
    }
}
