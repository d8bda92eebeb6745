// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The rows of an event loop: many streams, and the same over Unix sockets.

use std::io;
use std::time::Duration;

use crate::suite::{Group, INNER, Job, UNIX, Workload};
use crate::workload::event_loop::{self, IdleLoop, Make, inner, unix};
use vsock_report::Place;

/// Streams of a loop.
const STREAMS: [(&str, usize); 4] = [("10", 10), ("100", 100), ("1000", 1000), ("10000", 10_000)];
/// Clients of a loop.
const CLIENTS: [(&str, usize); 3] = [("1", 1), ("64", 64), ("1024", 1024)];

/// The rows of the table of idle loops.
pub(crate) const IDLE_LOOP_ROWS: [&str; 2] = [UNIX, INNER];

/// Observes a loop of idle streams of a row for `time`.
pub(crate) fn idle_loop(row: &str, streams: usize, time: Duration) -> io::Result<IdleLoop> {
    let make: Make = if row == UNIX { unix } else { inner };
    event_loop::idle(make, streams, time)
}

/// Returns every case of both workloads.
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{IDLE_LOOP_ROWS, idle_loop};

    #[test]
    fn an_idle_loop_is_watched_for_the_requested_time_and_not_woken() {
        for row in IDLE_LOOP_ROWS {
            let time = Duration::from_millis(20);
            let idle = idle_loop(row, 10, time).unwrap_or_else(|e| panic!("{row}: {e}"));
            assert_eq!((idle.streams, idle.wakeups), (10, 0), "{row}");
            assert!(idle.seconds >= time.as_secs_f64(), "{row}");
        }
    }
}
