// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Tokio tasks: each case on a runtime with one thread and on one with two.

use vsock_report::allow_descriptors;

use crate::suite::rows::{DUPLEX, KIB_256, SIZES, UNIX};
use crate::suite::{Group, Job, Workload};
use crate::transport::{AsyncTransport, Duplex, TokioInner, TokioUnixPair};
use crate::workload::tasks::{self, CONNECTIONS, Flavour};

/// The row of the adapter for tokio.
pub(crate) const TOKIO: &str = "vsock-tokio";

/// Descriptors of the connections of a round, and those of the rest of the process.
const DESCRIPTORS: u64 = 2 * CONNECTIONS + 64;

/// The cases of streams, in the order of the sizes.
const STREAMS: [(Flavour, [&str; 4]); 2] = [
    (
        Flavour::OneThread,
        [
            "64 B, 1 thread",
            "1 KiB, 1 thread",
            "4 KiB, 1 thread",
            "64 KiB, 1 thread",
        ],
    ),
    (
        Flavour::TwoThreads,
        [
            "64 B, 2 threads",
            "1 KiB, 2 threads",
            "4 KiB, 2 threads",
            "64 KiB, 2 threads",
        ],
    ),
];

/// The job of two tasks.
#[derive(Clone, Copy)]
enum Work {
    Stream(usize),
    PingPong,
    Connections,
}

pub(super) fn groups() -> Vec<Group> {
    let mut groups = Vec::new();
    for (flavour, cases) in STREAMS {
        for (case, (_, size)) in cases.into_iter().zip(SIZES) {
            let rows = rows(Work::Stream(size), flavour);
            groups.push(group(Workload::AsyncStream, case, rows));
        }
    }
    let flavours = [
        ("1 thread", Flavour::OneThread),
        ("2 threads", Flavour::TwoThreads),
    ];
    for (case, flavour) in flavours {
        let rows = rows(Work::PingPong, flavour);
        groups.push(group(Workload::AsyncPingPong, case, rows));
    }
    for (case, flavour) in flavours {
        let rows = rows(Work::Connections, flavour);
        groups.push(group(Workload::AsyncConnections, case, rows));
    }
    groups
}

fn group(workload: Workload, case: &'static str, rows: Vec<(&'static str, Job)>) -> Group {
    Group {
        workload,
        case,
        rows,
    }
}

fn rows(work: Work, flavour: Flavour) -> Vec<(&'static str, Job)> {
    vec![
        (UNIX, job(work, TokioUnixPair, flavour)),
        (DUPLEX, job(work, Duplex(KIB_256), flavour)),
        (TOKIO, job(work, TokioInner, flavour)),
    ]
}

fn job<T: AsyncTransport>(work: Work, transport: T, flavour: Flavour) -> Job {
    Box::new(move |units| match work {
        Work::Stream(size) => tasks::stream(transport, flavour, size, units),
        Work::PingPong => tasks::ping_pong(transport, flavour, units),
        Work::Connections => {
            allow_descriptors(DESCRIPTORS)?;
            tasks::connections(transport, flavour, units)
        }
    })
}
