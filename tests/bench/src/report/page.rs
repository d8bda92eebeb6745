// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The parts of `docs/benchmarks.md` that this bench writes.

use std::path::Path;

use anyhow::Result;
use vsock_report::{Spread, digits, publish};

use crate::report::{chart, compared, rate};
use crate::results::{Cell, Results};
use crate::suite::{
    DUPLEX, INNER, INNER_1M, INNER_256K, INNER_NO_SPIN, RING_1M, RING_256K, TOKIO, UNIX, Workload,
};
use crate::targets::{self, SIZES};

/// Where a number was not measured.
const NONE: &str = "-";
/// The threads of a runtime, as its cases are named.
const ONE_THREAD: &str = "1 thread";
const TWO_THREADS: &str = "2 threads";

/// A line of the table of streams: its name, and the row and its reference in each case.
struct StreamLine {
    name: &'static str,
    workload: Workload,
    /// What follows the size in the name of a case.
    threads: Option<&'static str>,
    row: &'static str,
    against: &'static str,
}

const fn line(
    name: &'static str,
    workload: Workload,
    row: &'static str,
    against: &'static str,
) -> StreamLine {
    StreamLine {
        name,
        workload,
        threads: None,
        row,
        against,
    }
}

const fn tasks(name: &'static str, threads: &'static str, against: &'static str) -> StreamLine {
    StreamLine {
        threads: Some(threads),
        ..line(name, Workload::AsyncStream, TOKIO, against)
    }
}

const STREAMS: [StreamLine; 9] = [
    line("both ends blocking", Workload::Stream, INNER_256K, UNIX),
    line("the same, capacity 1 MiB", Workload::Stream, INNER_1M, UNIX),
    line("reader on epoll", Workload::ToEpoll, INNER_256K, UNIX),
    line("writer on epoll", Workload::FromEpoll, INNER_256K, UNIX),
    line(
        "both threads on one core",
        Workload::OneCoreStream,
        INNER_256K,
        UNIX,
    ),
    tasks("tokio tasks, 1 thread", ONE_THREAD, UNIX),
    tasks("tokio tasks, 2 threads", TWO_THREADS, UNIX),
    line(
        "both ends blocking",
        Workload::Stream,
        INNER_256K,
        RING_256K,
    ),
    line(
        "the same, capacity 1 MiB",
        Workload::Stream,
        INNER_1M,
        RING_1M,
    ),
];

const OPERATIONS: [(&str, Workload, &str, &str); 10] = [
    (
        "round trip of 64 B, both ends blocking",
        Workload::PingPong,
        "64 B",
        INNER_256K,
    ),
    (
        "the same, without polling",
        Workload::PingPong,
        "64 B",
        INNER_NO_SPIN,
    ),
    (
        "round trip of 64 B, one end on epoll",
        Workload::PingPongEpoll,
        "64 B",
        INNER_256K,
    ),
    (
        "the same, without polling",
        Workload::PingPongEpoll,
        "64 B",
        INNER_NO_SPIN,
    ),
    ("connect, accept, drop", Workload::Connect, "bare", INNER),
    (
        "echo of 64 B on an event loop, 1 client",
        Workload::LoopEcho,
        "1",
        INNER,
    ),
    ("the same, 1,024 clients", Workload::LoopEcho, "1024", INNER),
    (
        "round trip of 64 B, tokio tasks, 1 thread",
        Workload::AsyncPingPong,
        ONE_THREAD,
        TOKIO,
    ),
    (
        "the same, 2 threads",
        Workload::AsyncPingPong,
        TWO_THREADS,
        TOKIO,
    ),
    (
        "request on each of 1,000 connections, 1 thread",
        Workload::AsyncConnections,
        ONE_THREAD,
        TOKIO,
    ),
];

/// Writes the tables and the chart of a run of everything into the directory `docs`.
pub(crate) fn write(results: &Results, docs: &Path) -> Result<String> {
    let parts = [
        ("transport-summary", summary(results)),
        ("transport", tables(results)),
    ];
    // One of the two capacities, and nothing that is only a limit.
    let shown =
        |row: &str| row != INNER_1M && !row.starts_with("bare") && !row.starts_with("two copies");
    let chart = chart::svg(results, Workload::Stream, shown);
    let charts = chart.map(|svg| ("bench-stream", svg));
    publish(docs, &parts, charts.as_slice())
}

fn summary(results: &Results) -> String {
    let ends = |against| {
        let ratios = SIZES.into_iter().filter_map(|case| {
            let cell = results.cell(Workload::Stream, case, INNER_256K)?;
            Some(compared(results, cell, against)?.median)
        });
        Spread::of(ratios).map_or_else(
            || NONE.to_owned(),
            |ratios| format!("{} to {}", digits(ratios.least), digits(ratios.most)),
        )
    };
    let rates = SIZES.into_iter().filter_map(|case| {
        let cell = results.cell(Workload::Stream, case, INNER_256K)?;
        Some(Spread::of(cell.rates())?.median / 1e9)
    });
    let rates = Spread::of(rates).map_or_else(
        || NONE.to_owned(),
        |rates| format!("{} to {}", digits(rates.least), digits(rates.most)),
    );
    let turn = results.cell(Workload::PingPong, "64 B", INNER_256K);
    let (time, times) = turn.map_or_else(
        || (NONE.to_owned(), NONE.to_owned()),
        |cell| {
            let ratio = compared(results, cell, UNIX).map(|ratio| digits(ratio.median));
            (time(cell), ratio.unwrap_or_else(|| NONE.to_owned()))
        },
    );
    format!(
        "- The transport, between two threads: {rates} GB/s with writes of 64 B to 64 KiB,\n  {} \
         times the throughput of a Unix socket pair. A round trip of 64 B takes\n  {time}, at \
         {times} times the rate of a Unix socket pair.\n",
        ends(UNIX)
    )
}

fn tables(results: &Results) -> String {
    let verdicts = targets::verdicts(results);
    let reached = verdicts.iter().filter(|verdict| verdict.reached).count();
    let mut text = format!(
        "{}, {} cores, {}; medians of {} rounds; {reached} of {} aims reached.\n\n\
         | a stream | compared with | {} |\n|---|---|---:|---:|---:|---:|\n",
        results.processor,
        results.cores,
        results.kernel,
        results.rounds(),
        verdicts.len(),
        SIZES.join(" | "),
    );
    for line in &STREAMS {
        let cells = SIZES.map(|size| line.cell(results, size));
        text += &format!(
            "| {} | {} | {} |\n",
            line.name,
            line.against,
            cells.join(" | ")
        );
    }
    text += "\n| one operation | time | compared with unix pair | system calls |\n\
             |---|---:|---:|---:|\n";
    for (name, workload, case, row) in OPERATIONS {
        let Some(cell) = results.cell(workload, case, row) else {
            continue;
        };
        let calls = cell.system_calls.map_or_else(|| NONE.to_owned(), digits);
        let mut ratios = times(results, cell, UNIX);
        if results.cell(workload, case, DUPLEX).is_some() {
            ratios += &format!("; duplex: {}", times(results, cell, DUPLEX));
        }
        let time = time(cell);
        text += &format!("| {name} | {time} | {ratios} | {calls} |\n");
    }
    text + &idle(results)
}

impl StreamLine {
    fn cell(&self, results: &Results, size: &str) -> String {
        let case = self
            .threads
            .map_or_else(|| size.to_owned(), |threads| format!("{size}, {threads}"));
        let cell = results.cell(self.workload, &case, self.row);
        cell.map_or_else(
            || NONE.to_owned(),
            |cell| times(results, cell, self.against),
        )
    }
}

/// Returns how many times the rate of another row a cell has, a star if that misses the aim, and
/// the aim if there is one.
fn times(results: &Results, cell: &Cell, against: &str) -> String {
    let Some(ratio) = compared(results, cell, against) else {
        return NONE.to_owned();
    };
    let median = digits(ratio.median);
    match targets::least_times(cell.workload, &cell.case, &cell.row, against) {
        Some(aim) if ratio.median < aim => format!("{median}* ({aim})"),
        Some(aim) => format!("{median} ({aim})"),
        None => median,
    }
}

fn time(cell: &Cell) -> String {
    let spread = Spread::of(cell.rates());
    spread.map_or_else(
        || NONE.to_owned(),
        |spread| rate(cell.workload.unit(), spread.median),
    )
}

fn idle(results: &Results) -> String {
    let mut text = String::new();
    if let Some(row) = results.idle.iter().find(|row| row.row == INNER) {
        text += &format!(
            "\nAn idle connection has {:.0} bytes of resident memory and {} descriptors.\n",
            row.idle.bytes_each(),
            digits(row.idle.descriptors_each())
        );
    }
    if let Some(row) = results.idle_loops.iter().find(|row| row.row == INNER) {
        text += &format!(
            "A loop of {} idle streams wakes up {} times in {:.0} s and uses {:.0} us of CPU \
             time.\n",
            row.idle.streams,
            row.idle.wakeups,
            row.idle.seconds,
            row.idle.processor_seconds * 1e6
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{OPERATIONS, STREAMS, tables};
    use crate::results::{Cell, Results};
    use crate::sample::Sample;
    use crate::suite::{INNER_256K, UNIX, Workload, all_groups};
    use crate::targets::SIZES;
    use vsock_report::Place;

    fn cell(row: &str, millis: u64) -> Cell {
        let mut cell = Cell::new(Workload::Stream, "4 KiB", row);
        cell.add(Sample {
            units: 1 << 20,
            elapsed: Duration::from_millis(millis),
            system_calls: None,
            switches: 0,
        });
        cell
    }

    #[test]
    fn a_star_marks_a_missed_aim() {
        for (ours, expected) in [(10, "| 4.00 (3.5) |"), (20, "| 2.00* (3.5) |")] {
            let results = Results {
                cells: vec![cell(UNIX, 40), cell(INNER_256K, ours)],
                ..Results::new(String::new(), 2)
            };
            let text = tables(&results);
            assert!(text.contains(expected), "{text}");
        }
    }

    #[test]
    fn every_line_is_about_a_row_of_the_suite() {
        let groups = all_groups(Place::Free);
        let is_measured = |workload, case: &str, row: &str| {
            let mut groups = groups.iter();
            let group = groups.find(|group| group.workload == workload && group.case == case);
            group.is_some_and(|group| group.rows.iter().any(|(name, _)| *name == row))
        };
        for line in &STREAMS {
            for size in SIZES {
                let case = line
                    .threads
                    .map_or_else(|| size.to_owned(), |n| format!("{size}, {n}"));
                assert!(is_measured(line.workload, &case, line.row), "{}", line.name);
                assert!(
                    is_measured(line.workload, &case, line.against),
                    "{}",
                    line.name
                );
            }
        }
        for (name, workload, case, row) in OPERATIONS {
            assert!(is_measured(workload, case, row), "{name}");
        }
    }
}
