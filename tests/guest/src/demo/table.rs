// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The last table.

use std::fmt::Write as _;

use vsock_report::median;

use super::Round;
use crate::suite::pairs::Opener;

const GIB: f64 = 1_073_741_824.0;

/// A line for each way: medians of its rounds. Bytes are counted there and back.
pub(super) fn text(file: usize, device: &str, lines: &[(Opener, Vec<Round>)]) -> String {
    let bytes = file as f64 * 2.0;
    let mut text = format!(
        "{:<20}{:<10}{:>14}{:>10}{:>8}{:>24}\n",
        "device", "connects", "bytes", "seconds", "MB/s", "device CPU s per GiB"
    );
    for (opener, rounds) in lines {
        let middle =
            |figure: fn(&Round) -> f64| median(rounds.iter().map(figure)).unwrap_or_default();
        let seconds = middle(|round| round.seconds);
        let cpu = match bytes {
            0.0 => "-".to_owned(),
            bytes => format!("{:.2}", middle(|round| round.device) / bytes * GIB),
        };
        // Writing to a string cannot fail.
        _ = writeln!(
            text,
            "{:<20}{:<10}{bytes:>14.0}{seconds:>10.3}{:>8.0}{cpu:>24}",
            device,
            format!("{opener:?}").to_lowercase(),
            bytes / seconds.max(1e-9) / 1e6,
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Opener, Round, text};

    #[test]
    fn the_table_has_the_medians_there_and_back() {
        let round = |seconds| Round {
            seconds,
            device: 1.0,
        };
        let rounds = [0.9, 0.1, 0.2].map(round).to_vec();
        let text = text(1 << 20, "row", &[(Opener::Host, rounds)]);
        let row: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(row, ["row", "host", "2097152", "0.200", "10", "512.00"]);
    }
}
