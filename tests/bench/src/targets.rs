// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The aims of the transport, and whether a run reaches them.
//!
//! They apply to two cores that are otherwise idle.

use vsock_report::{Spread, Verdict};

use crate::results::Results;
use crate::suite::{
    DUPLEX, INNER, INNER_1M, INNER_256K, INNER_NO_SPIN, RING_1M, RING_256K, TOKIO, UNIX, Workload,
};

/// The sizes of a write, as the cases are named.
pub(crate) const SIZES: [&str; 4] = ["64 B", "1 KiB", "4 KiB", "64 KiB"];
/// Times the bare ring, at every size.
const OF_THE_RING: f64 = 0.9;
/// Times the Unix pair on one core.
const ON_ONE_CORE: f64 = 1.2;
/// The most that an event costs with many streams, compared with few.
const FLAT: f64 = 1.5;
/// System calls per MiB of a stream, at every size.
const SYSTEM_CALLS: f64 = 20.0;
/// Resident bytes of an idle connection.
const IDLE_BYTES: f64 = 4096.0;
/// Descriptors of an idle connection both ends of which are polled.
const IDLE_DESCRIPTORS: f64 = 2.0;

/// Microseconds of CPU time that an idle loop uses in a second: the wait itself, begun and ended.
const IDLE_LOOP: f64 = 100.0;

/// What an aim demands.
#[derive(Clone, Copy, Debug)]
enum Goal {
    /// At least this many times the rate of another row.
    Times(f64, &'static str),
    /// At most this many system calls per MiB.
    SystemCallsPerMib(f64),
    /// At most this many times the cost of the same row in another case.
    CostOfCase(f64, &'static str),
}

/// An aim.
#[derive(Clone, Copy, Debug)]
struct Target {
    workload: Workload,
    case: &'static str,
    row: &'static str,
    goal: Goal,
}

/// Compares `results` with each aim for which they have figures.
pub(crate) fn verdicts(results: &Results) -> Vec<Verdict> {
    let mut verdicts: Vec<Verdict> = targets()
        .iter()
        .filter_map(|target| target.judge(results))
        .collect();
    for cell in &results.idle {
        match cell.row.as_str() {
            INNER => verdicts.push(at_most(
                "idle: resident bytes per connection",
                cell.idle.bytes_each(),
                IDLE_BYTES,
            )),
            "vsock-inner, both poll" => verdicts.push(at_most(
                "idle: descriptors per connection",
                cell.idle.descriptors_each(),
                IDLE_DESCRIPTORS,
            )),
            _ => {}
        }
    }
    for cell in results.idle_loops.iter().filter(|cell| cell.row == INNER) {
        let share = cell.idle.processor_seconds / cell.idle.seconds;
        verdicts.push(at_most(
            "idle loop: us of CPU time per second",
            share * 1e6,
            IDLE_LOOP,
        ));
    }
    verdicts
}

fn at_most(what: &str, measured: f64, limit: f64) -> Verdict {
    Verdict {
        what: what.to_owned(),
        goal: format!("<= {limit}"),
        measured: format!("{measured:.1}"),
        reached: measured <= limit,
    }
}

/// Returns the aim for a row's rate as a multiple of another row's, if there is one.
pub(crate) fn least_times(workload: Workload, case: &str, row: &str, against: &str) -> Option<f64> {
    targets().iter().find_map(|target| match target.goal {
        Goal::Times(factor, reference)
            if (target.workload, target.case, target.row, reference)
                == (workload, case, row, against) =>
        {
            Some(factor)
        }
        _ => None,
    })
}

fn targets() -> Vec<Target> {
    let mut targets = Vec::new();
    let mut per_size = |workload, row, against, factors: [f64; 4]| {
        for (case, factor) in SIZES.into_iter().zip(factors) {
            targets.push(Target {
                workload,
                case,
                row,
                goal: Goal::Times(factor, against),
            });
        }
    };
    per_size(Workload::Stream, INNER_256K, RING_256K, [OF_THE_RING; 4]);
    per_size(Workload::Stream, INNER_1M, RING_1M, [OF_THE_RING; 4]);
    per_size(Workload::Stream, INNER_256K, UNIX, [25.0, 7.0, 3.5, 1.6]);
    per_size(Workload::Stream, INNER_1M, UNIX, [30.0, 12.0, 6.0, 2.5]);
    for workload in [Workload::ToEpoll, Workload::FromEpoll] {
        per_size(workload, INNER_256K, UNIX, [25.0, 7.0, 3.5, 1.6]);
        per_size(workload, INNER_1M, UNIX, [30.0, 11.0, 6.0, 2.5]);
    }
    for row in [INNER_256K, INNER_1M] {
        per_size(Workload::OneCoreStream, row, UNIX, [ON_ONE_CORE; 4]);
    }
    let times = |workload, case, row, factor| Target {
        workload,
        case,
        row,
        goal: Goal::Times(factor, UNIX),
    };
    targets.extend([
        times(Workload::PingPong, "64 B", INNER_256K, 50.0),
        times(Workload::PingPong, "64 B", INNER_NO_SPIN, 1.0),
        times(Workload::PingPongEpoll, "64 B", INNER_256K, 5.0),
        times(Workload::PingPongEpoll, "64 B", INNER_NO_SPIN, 1.0),
        times(Workload::Connect, "bare", INNER, 1.7),
        times(Workload::OneCorePingPong, "64 B", INNER_256K, 1.0),
        times(Workload::OneCorePingPong, "64 B", INNER_NO_SPIN, 1.0),
    ]);
    targets.extend(["1", "64", "1024"].map(|case| times(Workload::LoopEcho, case, INNER, 1.5)));
    targets.extend(["100", "1000", "10000"].map(|case| Target {
        workload: Workload::LoopEvents,
        case,
        row: INNER,
        goal: Goal::CostOfCase(FLAT, "10"),
    }));
    for row in [INNER_256K, INNER_1M] {
        targets.extend(SIZES.map(|case| Target {
            workload: Workload::Stream,
            case,
            row,
            goal: Goal::SystemCallsPerMib(SYSTEM_CALLS),
        }));
    }
    targets.extend(of_tasks());
    targets
}

/// Returns the aims of tasks on a tokio runtime.
fn of_tasks() -> Vec<Target> {
    let times = |workload, case, factor, against| Target {
        workload,
        case,
        row: TOKIO,
        goal: Goal::Times(factor, against),
    };
    vec![
        times(Workload::AsyncPingPong, "1 thread", 1.0, DUPLEX),
        times(Workload::AsyncPingPong, "2 threads", 3.0, UNIX),
        times(Workload::AsyncStream, "1 KiB, 1 thread", 2.0, UNIX),
        times(Workload::AsyncStream, "1 KiB, 2 threads", 2.0, UNIX),
        times(Workload::AsyncStream, "64 KiB, 1 thread", 1.3, UNIX),
        times(Workload::AsyncStream, "64 KiB, 2 threads", 1.3, UNIX),
    ]
}

impl Target {
    /// Returns `None` if a row that it compares was not measured.
    fn judge(&self, results: &Results) -> Option<Verdict> {
        let cell = results.cell(self.workload, self.case, self.row)?;
        let (goal, measured, reached) = match self.goal {
            Goal::Times(factor, against) => {
                let reference = results.cell(self.workload, self.case, against)?;
                let ratio = Spread::of_ratios(&cell.rates(), &reference.rates())?.median;
                let goal = format!(">= {factor} times {against}");
                (goal, format!("{ratio:.2}"), ratio >= factor)
            }
            Goal::CostOfCase(limit, case) => {
                let reference = results.cell(self.workload, case, self.row)?;
                let ratio = Spread::of_ratios(&reference.rates(), &cell.rates())?.median;
                let goal = format!("<= {limit} times that of {case}");
                (goal, format!("{ratio:.2}"), ratio <= limit)
            }
            Goal::SystemCallsPerMib(limit) => {
                let per_mib = cell.system_calls? * f64::from(1 << 20);
                let goal = format!("<= {limit} system calls per MiB");
                (goal, format!("{per_mib:.1}"), per_mib <= limit)
            }
        };
        Some(Verdict {
            what: format!("{}, {}: {}", self.workload.name(), self.case, self.row),
            goal,
            measured,
            reached,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{targets, verdicts};
    use crate::results::{Cell, Results};
    use crate::sample::Sample;
    use crate::suite::{INNER_1M, UNIX, Workload, all_groups};
    use std::time::Duration;
    use vsock_report::Place;

    fn cell(row: &str, millis: u64) -> Cell {
        let mut cell = Cell::new(Workload::Stream, "64 B", row);
        let sample = Sample {
            units: 1 << 20,
            elapsed: Duration::from_millis(millis),
            system_calls: Some(21),
            switches: 0,
        };
        cell.add(sample);
        cell.count(sample);
        cell
    }

    #[test]
    fn the_median_ratio_decides_whether_an_aim_is_reached() {
        let results = Results {
            cells: vec![cell(UNIX, 310), cell(INNER_1M, 10)],
            ..Results::new(String::new(), 2)
        };
        let verdicts = verdicts(&results);
        let said: Vec<_> = verdicts
            .iter()
            .map(|v| (v.goal.as_str(), v.measured.as_str(), v.reached))
            .collect();
        assert_eq!(
            said,
            [
                (">= 30 times unix pair", "31.00", true),
                ("<= 20 system calls per MiB", "21.0", false),
            ]
        );
    }

    #[test]
    fn every_figure_is_about_a_row_of_the_suite() {
        let groups = all_groups(Place::Free);
        for target in targets() {
            let group = groups
                .iter()
                .find(|group| group.workload == target.workload && group.case == target.case)
                .unwrap_or_else(|| panic!("{target:?}"));
            assert!(
                group.rows.iter().any(|(row, _)| *row == target.row),
                "{target:?}"
            );
        }
    }
}
