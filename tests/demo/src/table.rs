// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The last table.

use std::fmt::Write as _;

use vsock_muxer::MuxerCounters;

use crate::job::Outcome;
use crate::way::Way;

const MIB: f64 = 1024.0 * 1024.0;

/// A line for each way: medians of its rounds. Bytes, packets and credit updates are counted there
/// and back.
pub(crate) fn render(file: usize, rows: &[(Way, Vec<Outcome>)]) -> String {
    let bytes = number(file as u64) * 2.0;
    let per_mib = |count: u64| match file {
        0 => none(),
        _ => format!("{:.1}", number(count) / (bytes / MIB)),
    };
    let mut text = format!(
        "{:<20}{:>12}{:>10}{:>8}{:>10}{:>17} {:>21}\n",
        "way", "bytes", "seconds", "MB/s", "pkts/MiB", "credit upd./MiB", "system calls per MiB"
    );
    for (way, outcomes) in rows {
        let seconds = median(outcomes.iter().map(|outcome| outcome.time)).as_secs_f64();
        let calls: Result<Vec<u64>, &String> = outcomes
            .iter()
            .map(|outcome| outcome.calls.as_ref().copied())
            .collect();
        let calls = match calls {
            Ok(calls) => per_mib(median(calls.into_iter())),
            Err(why) => format!("not counted: {why}"),
        };
        // Without a guest there are no packets.
        let counted = |count: fn(&MuxerCounters) -> u64| {
            let counters = outcomes.iter().map(|outcome| outcome.counters.as_ref());
            let counts: Option<Vec<u64>> = counters.map(|counters| counters.map(count)).collect();
            counts.map_or_else(none, |counts| per_mib(median(counts.into_iter())))
        };
        let packets = counted(|count| count.packets_from_guest + count.packets_to_guest);
        let updates =
            counted(|count| count.credit_updates_from_guest + count.credit_updates_to_guest);
        let speed = bytes / seconds.max(f64::EPSILON) / 1e6;
        // Writing to a string cannot fail.
        _ = writeln!(
            text,
            "{:<20}{bytes:>12.0}{seconds:>10.4}{speed:>8.0}{packets:>10}{updates:>17} {calls:>21}",
            way.name()
        );
    }
    text
}

fn none() -> String {
    "-".to_owned()
}

#[expect(clippy::cast_precision_loss, reason = "a count of less than 2^52")]
fn number(count: u64) -> f64 {
    count as f64
}

/// The middle one, which is there: every way has done a round.
fn median<T: Ord + Default + Copy>(values: impl Iterator<Item = T>) -> T {
    let mut values: Vec<T> = values.collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use vsock_muxer::MuxerCounters;

    use super::render;
    use crate::job::Outcome;
    use crate::way::Way;

    fn outcome(millis: u64, calls: Result<u64, String>) -> Outcome {
        Outcome {
            time: Duration::from_millis(millis),
            calls,
            counters: None,
        }
    }

    fn row(file: usize, outcomes: Vec<Outcome>) -> String {
        let text = render(file, &[(Way::Inner, outcomes)]);
        text.lines().nth(1).unwrap().to_owned()
    }

    #[test]
    fn the_table_has_the_medians() {
        let mut outcomes = [900, 100, 200].map(|time| outcome(time, Ok(time))).to_vec();
        let words = |row: String| {
            row.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let without = ["vsock-inner", "2097152", "0.2000", "10", "-", "-", "100.0"];
        assert_eq!(words(row(1 << 20, outcomes.clone())), without);
        for (packets, outcome) in (1..).zip(&mut outcomes) {
            let mut counters = MuxerCounters::default();
            counters.packets_to_guest = packets;
            counters.credit_updates_from_guest = 10 * packets;
            outcome.counters = Some(counters);
        }
        let with = [
            "vsock-inner",
            "2097152",
            "0.2000",
            "10",
            "1.0",
            "10.0",
            "100.0",
        ];
        assert_eq!(words(row(1 << 20, outcomes)), with);
    }

    #[test]
    fn what_was_not_counted_is_no_number() {
        let row = row(1, vec![outcome(1, Err("not permitted".into()))]);
        assert!(row.ends_with("not counted: not permitted"), "{row}");
    }
}
