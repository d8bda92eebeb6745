// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The job with a device and a guest between: rounds of it, and their table.

mod echo;
mod rig;
mod round;

use std::fmt::Write as _;

use anyhow::Context;
pub(crate) use round::{Begins, Outcome};
use vsock_report::{Digest, Progress};

const MIB: f64 = 1024.0 * 1024.0;

/// Does the job once in each way, and checks what comes back.
pub(crate) fn round(
    bytes: &[u8],
    sent: Digest,
    progress: &Progress,
) -> anyhow::Result<[Outcome; 2]> {
    let once = |begins: Begins| {
        let (outcome, back) = round::run(begins, bytes, progress)?;
        let same = sent.check(&back).context(begins.name());
        same.map(|()| outcome)
    };
    Ok([once(Begins::Host)?, once(Begins::Guest)?])
}

/// A line for each way: that of its round with the median time. Bytes, packets and credit updates are
/// counted there and back.
pub(crate) fn render(file: usize, rounds: &[[Outcome; 2]]) -> String {
    let bytes = number(file as u64) * 2.0;
    let per_mib = |count: u64| match file {
        0 => "-".to_owned(),
        _ => format!("{:.1}", number(count) / (bytes / MIB)),
    };
    let mut text = format!(
        "{:<20}{:>12}{:>10}{:>8}{:>18}{:>10}{:>17}\n",
        "with a guest",
        "bytes",
        "seconds",
        "MB/s",
        "system calls/MiB",
        "pkts/MiB",
        "credit upd./MiB"
    );
    for (at, begins) in Begins::ALL.into_iter().enumerate() {
        let mut outcomes: Vec<&Outcome> = rounds.iter().map(|round| &round[at]).collect();
        outcomes.sort_by_key(|outcome| outcome.time);
        let Some(outcome) = outcomes.get(outcomes.len() / 2) else {
            continue;
        };
        let counters = outcome.counters;
        let seconds = outcome.time.as_secs_f64();
        let calls = match &outcome.calls {
            Ok(calls) => per_mib(*calls),
            Err(why) => why.clone(),
        };
        let packets = per_mib(counters.packets_from_guest + counters.packets_to_guest);
        let updates =
            per_mib(counters.credit_updates_from_guest + counters.credit_updates_to_guest);
        let speed = bytes / seconds.max(f64::EPSILON) / 1e6;
        // Writing to a string cannot fail.
        _ = writeln!(
            text,
            "{:<20}{bytes:>12.0}{seconds:>10.4}{speed:>8.0}{calls:>18}{packets:>10}{updates:>17}",
            begins.name()
        );
    }
    text
}

#[expect(clippy::cast_precision_loss, reason = "a count of less than 2^52")]
fn number(count: u64) -> f64 {
    count as f64
}
