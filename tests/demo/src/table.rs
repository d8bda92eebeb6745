// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The last table.

use std::fmt::Write as _;

use crate::job::Outcome;

const MIB: f64 = 1024.0 * 1024.0;

/// A line for each transport: medians of its rounds. Bytes are counted there and back.
pub(crate) fn render<'a>(
    file: usize,
    rows: impl Iterator<Item = (&'static str, &'a Vec<Outcome>)>,
) -> String {
    #[expect(
        clippy::cast_precision_loss,
        reason = "a file has less than 2^52 bytes"
    )]
    let bytes = file as f64 * 2.0;
    let mut text = format!(
        "{:<18}{:>14}{:>12}{:>10}{:>24}\n",
        "transport", "bytes", "seconds", "MB/s", "system calls per MiB"
    );
    for (name, outcomes) in rows {
        let seconds = median(outcomes.iter().map(|outcome| outcome.time)).as_secs_f64();
        let calls: Result<Vec<u64>, &String> = outcomes
            .iter()
            .map(|outcome| outcome.calls.as_ref().copied())
            .collect();
        let calls = match calls {
            Ok(_) if file == 0 => "-".to_owned(),
            #[expect(clippy::cast_precision_loss, reason = "fewer calls than 2^52")]
            Ok(calls) => format!("{:.1}", median(calls.into_iter()) as f64 / (bytes / MIB)),
            Err(why) => format!("not counted: {why}"),
        };
        let speed = if seconds > 0.0 {
            bytes / seconds / 1e6
        } else {
            0.0
        };
        // Writing to a string cannot fail.
        _ = writeln!(
            text,
            "{name:<18}{bytes:>14.0}{seconds:>12.4}{speed:>10.0}{calls:>24}"
        );
    }
    text
}

/// The middle one, which is there: every transport has done a round.
fn median<T: Ord + Default + Copy>(values: impl Iterator<Item = T>) -> T {
    let mut values: Vec<T> = values.collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::render;
    use crate::job::Outcome;

    fn outcome(millis: u64, calls: Result<u64, String>) -> Outcome {
        Outcome {
            time: Duration::from_millis(millis),
            calls,
        }
    }

    #[test]
    fn the_table_has_the_medians() {
        let outcomes = [900, 100, 200].map(|time| outcome(time, Ok(time))).to_vec();
        let text = render(1 << 20, [("row", &outcomes)].into_iter());
        let row: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(row, ["row", "2097152", "0.2000", "10", "100.0"]);
    }

    #[test]
    fn what_was_not_counted_is_no_number() {
        let outcomes = vec![outcome(1, Err("not permitted".into()))];
        let text = render(1, [("row", &outcomes)].into_iter());
        assert!(text.ends_with("not counted: not permitted\n"));
    }
}
