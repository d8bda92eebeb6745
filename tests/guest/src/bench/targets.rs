// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The aims of our devices, as ratios to vhost-device-vsock.

use vsock_report::{Spread, Verdict};

use super::results::{Results, Sample};
use super::work::Work;
use crate::device::Kind;

/// Returns the most CPU time, as a multiple of that of vhost-device-vsock.
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

/// The least rate, as a multiple of that of vhost-device-vsock.
const LEAST_RATE: f64 = 1.0;

/// Compares the results with each aim.
pub(crate) fn verdicts(results: &Results) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for kind in Kind::MEASURED {
        for work in Work::ALL {
            if let Some(most) = most_cpu(kind, work) {
                if let Some(ratio) = ratio(results, kind, work, Sample::cpu) {
                    verdicts.push(Verdict {
                        what: format!("{}, {}: CPU time", kind.name(), work.name()),
                        goal: format!("<= {most}"),
                        measured: format!("{ratio:.2}"),
                        reached: ratio <= most,
                    });
                }
            }
            if kind != Kind::Peer {
                if let Some(ratio) = ratio(results, kind, work, Sample::rate) {
                    verdicts.push(Verdict {
                        what: format!("{}, {}: rate", kind.name(), work.name()),
                        goal: format!(">= {LEAST_RATE}"),
                        measured: format!("{ratio:.2}"),
                        reached: ratio >= LEAST_RATE,
                    });
                }
            }
        }
    }
    verdicts
}

/// Returns the median ratio of a figure to that of vhost-device-vsock, if both were measured.
pub(crate) fn ratio(
    results: &Results,
    kind: Kind,
    work: Work,
    figure: fn(&Sample) -> f64,
) -> Option<f64> {
    let ours = results.find(work.name(), kind.name())?.each(figure);
    let theirs = results.find(work.name(), Kind::Peer.name())?.each(figure);
    Spread::of_ratios(&ours, &theirs).map(|spread| spread.median)
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
        let expected = [("<= 0.75", "0.50", true), (">= 1", "0.50", false)];
        let expected = expected.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c));
        assert_eq!(verdicts, expected);
    }
}
