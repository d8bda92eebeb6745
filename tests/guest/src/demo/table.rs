// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The table at the end.

use std::fmt::Write as _;

use vsock_report::median;

use super::Round;
use crate::suite::pairs::Opener;

const GIB: f64 = 1_073_741_824.0;

/// A line for each way, with the medians of its rounds, and a note. Bytes are counted there and
/// back.
pub(super) fn text(len: u64, device: &str, lines: &[(Opener, Vec<Round>)]) -> String {
    let bytes = len as f64 * 2.0;
    let mut text = format!(
        "{:<30}{:<10}{:>10}{:>8}{:>22}\n",
        "device", "connects", "seconds", "MB/s", "device CPU s per GiB"
    );
    for (opener, rounds) in lines {
        let middle =
            |figure: fn(&Round) -> f64| median(rounds.iter().map(figure)).unwrap_or_default();
        let seconds = middle(|round| round.trip.time.as_secs_f64());
        let cpu = match len {
            0 => "-".to_owned(),
            _ => format!("{:.2}", middle(|round| round.device) / bytes * GIB),
        };
        // Writing to a string cannot fail.
        _ = writeln!(
            text,
            "{device:<30}{:<10}{seconds:>10.3}{:>8.0}{cpu:>22}",
            format!("{opener:?}").to_lowercase(),
            bytes / seconds.max(1e-9) / 1e6,
        );
    }
    text.push_str(NOTE);
    text
}

const NOTE: &str = "
MB/s counts both directions. Without KVM the guest's processor is emulated, and it sets the pace.
";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use vsock_report::Trip;

    use super::{Opener, Round, text};

    fn round(millis: u64) -> Round {
        let trip = Trip {
            time: Duration::from_millis(millis),
            ..Trip::default()
        };
        Round { trip, device: 1.0 }
    }

    #[test]
    fn the_table_has_the_medians_there_and_back() {
        let rounds = [900, 100, 200].map(round).to_vec();
        let text = text(1 << 20, "row", &[(Opener::Host, rounds)]);
        let row: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(row, ["row", "host", "0.200", "10", "512.00"]);
        assert!(text.lines().all(|line| line.len() <= 100), "{text}");
    }
}
