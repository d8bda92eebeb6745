// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The figures that our devices are meant to reach, as ratios to the peer's.

use vsock_report::{Spread, Verdict};

use super::results::{Results, Sample};
use super::work::Work;
use crate::device::Kind;

/// At most so much of the peer's time on a core.
fn most_cpu(kind: Kind, work: Work) -> Option<f64> {
    match (kind, work) {
        (Kind::Peer, _) => None,
        (Kind::InProcess, Work::ToHost(_)) => Some(0.3),
        (Kind::InProcess, Work::ToGuest(_)) => Some(0.12),
        (Kind::Ours, Work::ToHost(_)) => Some(0.75),
        (Kind::Ours, Work::ToGuest(_)) => Some(0.25),
        (_, Work::Turns(_) | Work::Requests | Work::Connects(_)) => Some(0.6),
    }
}

/// Everything is at least as fast as the peer's.
const LEAST_RATE: f64 = 1.0;

/// Holds what was measured against every figure.
pub(crate) fn verdicts(results: &Results) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for kind in Kind::MEASURED {
        for work in Work::ALL {
            if let Some(most) = most_cpu(kind, work) {
                if let Some(ratio) = ratio(results, kind, work, Sample::cpu) {
                    verdicts.push(Verdict {
                        what: format!("{}, {}: time on a core", kind.name(), work.name()),
                        goal: format!("<= {most} x"),
                        measured: format!("{ratio:.2} x"),
                        reached: ratio <= most,
                    });
                }
            }
            if kind != Kind::Peer {
                if let Some(ratio) = ratio(results, kind, work, Sample::rate) {
                    verdicts.push(Verdict {
                        what: format!("{}, {}: rate", kind.name(), work.name()),
                        goal: format!(">= {LEAST_RATE} x"),
                        measured: format!("{ratio:.2} x"),
                        reached: ratio >= LEAST_RATE,
                    });
                }
            }
        }
    }
    verdicts
}

/// A figure as a ratio to the peer's, if both were measured.
pub(crate) fn ratio(
    results: &Results,
    kind: Kind,
    work: Work,
    figure: fn(&Sample) -> f64,
) -> Option<f64> {
    let ours = results.find(work.name(), kind.name())?.each(figure);
    let peers = results.find(work.name(), Kind::Peer.name())?.each(figure);
    Spread::of_ratios(&ours, &peers).map(|spread| spread.median)
}

#[cfg(test)]
mod tests {
    use super::{Results, Sample, Work, verdicts};
    use crate::device::Kind;
    use crate::usage::Usage;

    fn sample(seconds: f64, cpu: f64) -> Sample {
        Sample {
            units: 1e6,
            seconds,
            device: Usage {
                cpu,
                ..Usage::default()
            },
            host: Usage::default(),
        }
    }

    #[test]
    fn less_time_on_a_core_and_a_higher_rate_are_reached() {
        let work = Work::ToHost(64 << 10);
        let mut results = Results::new(std::iter::empty());
        let mut add = |kind: Kind, sample| {
            results.cell(work.name(), kind.name()).samples.push(sample);
        };
        add(Kind::Peer, sample(2.0, 1.0));
        add(Kind::Ours, sample(4.0, 0.5));
        let verdicts: Vec<_> = verdicts(&results)
            .into_iter()
            .map(|verdict| (verdict.goal, verdict.measured, verdict.reached))
            .collect();
        let expected = [("<= 0.75 x", "0.50 x", true), (">= 1 x", "0.50 x", false)];
        let expected = expected.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c));
        assert_eq!(verdicts, expected);
    }
}
