// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The rows of an event loop: many streams, and the same over Unix sockets.

use crate::place::Place;
use crate::suite::{Group, INNER, Job, UNIX, Workload};
use crate::workload::event_loop::{self, Make, inner, unix};

/// Streams of a loop.
const STREAMS: [(&str, usize); 4] = [("10", 10), ("100", 100), ("1000", 1000), ("10000", 10_000)];
/// Clients of a loop.
const CLIENTS: [(&str, usize); 3] = [("1", 1), ("64", 64), ("1024", 1024)];

/// Every case of both workloads.
pub(crate) fn groups(place: Place) -> Vec<Group> {
    let events = STREAMS.into_iter().map(|(case, streams)| {
        let job =
            |make: Make| -> Job { Box::new(move |units| event_loop::events(make, streams, units)) };
        Group {
            workload: Workload::LoopEvents,
            case,
            rows: vec![(UNIX, job(unix)), (INNER, job(inner))],
        }
    });
    let echoes = CLIENTS.into_iter().map(|(case, clients)| {
        let job = |make: Make| -> Job {
            Box::new(move |units| event_loop::echoes(make, place, clients, units))
        };
        Group {
            workload: Workload::LoopEcho,
            case,
            rows: vec![(UNIX, job(unix)), (INNER, job(inner))],
        }
    });
    events.chain(echoes).collect()
}
