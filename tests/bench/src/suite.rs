// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Every workload with every row that can do it.

mod idle;
mod loops;
mod rows;
mod tasks;

use std::io;

pub(crate) use idle::{IDLE_ROWS, hold_idle};
pub(crate) use loops::{IDLE_LOOP_ROWS, idle_loop};
pub(crate) use rows::{
    DUPLEX, INNER, INNER_1M, INNER_256K, INNER_NO_SPIN, RING_1M, RING_256K, UNIX, all_groups,
};
use serde::{Deserialize, Serialize};
pub(crate) use tasks::TOKIO;

use crate::sample::Sample;

/// A kind of job.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Workload {
    /// A stream, both ends blocking.
    Stream,
    /// A stream to a reader on a level-triggered epoll.
    ToEpoll,
    /// A stream from a non-blocking writer that waits for `EPOLLOUT`.
    FromEpoll,
    /// Requests and answers, both ends blocking.
    PingPong,
    /// Requests and answers, one end on a level-triggered epoll.
    PingPongEpoll,
    /// Connect, accept, drop.
    Connect,
    /// [`Self::Stream`] with both threads on one core.
    OneCoreStream,
    /// [`Self::PingPong`] with both threads on one core.
    OneCorePingPong,
    /// Echoes of ten streams among many on one event loop.
    LoopEvents,
    /// Clients of an echo on an event loop.
    LoopEcho,
    /// A stream between two tasks of a runtime.
    AsyncStream,
    /// Measures round trips between two tasks.
    AsyncPingPong,
    /// Connections with two tasks and one request each.
    AsyncConnections,
}

/// What is counted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Unit {
    /// Bytes carried.
    Bytes,
    /// Operations done.
    Operations,
}

impl Workload {
    /// Every workload, in the order of the tables.
    pub(crate) const ALL: [Self; 13] = [
        Self::Stream,
        Self::ToEpoll,
        Self::FromEpoll,
        Self::PingPong,
        Self::PingPongEpoll,
        Self::Connect,
        Self::OneCoreStream,
        Self::OneCorePingPong,
        Self::LoopEvents,
        Self::LoopEcho,
        Self::AsyncStream,
        Self::AsyncPingPong,
        Self::AsyncConnections,
    ];

    /// Returns the name in filters and file names.
    pub(crate) fn name(self) -> &'static str {
        self.facts().0
    }

    /// Returns the headline of its table and chart.
    pub(crate) fn title(self) -> &'static str {
        self.facts().1
    }

    /// Returns what its runs count.
    pub(crate) fn unit(self) -> Unit {
        self.facts().2
    }

    fn facts(self) -> (&'static str, &'static str, Unit) {
        use Unit::{Bytes, Operations};
        match self {
            Self::Stream => (
                "stream",
                "Stream, both ends blocking, by size of a write",
                Bytes,
            ),
            Self::ToEpoll => (
                "to-epoll",
                "Stream to a reader on epoll, one read of 64 KiB per event",
                Bytes,
            ),
            Self::FromEpoll => (
                "from-epoll",
                "Stream from a non-blocking writer that waits for EPOLLOUT",
                Bytes,
            ),
            Self::PingPong => (
                "ping-pong",
                "Round trips of 64 bytes, both ends blocking",
                Operations,
            ),
            Self::PingPongEpoll => (
                "ping-pong-epoll",
                "Round trips of 64 bytes, one end on epoll",
                Operations,
            ),
            Self::Connect => ("connect", "Connect, accept, drop", Operations),
            Self::OneCoreStream => ("one-core-stream", "Stream, both threads on one core", Bytes),
            Self::OneCorePingPong => (
                "one-core-ping-pong",
                "Round trips of 64 bytes, both threads on one core",
                Operations,
            ),
            Self::LoopEvents => (
                "loop-events",
                "Echoes of ten streams on one event loop, by number of streams",
                Operations,
            ),
            Self::LoopEcho => (
                "loop-echo",
                "Echoes of 64 bytes on one event loop, by number of clients",
                Operations,
            ),
            Self::AsyncStream => (
                "async-stream",
                "Stream between two tasks, by size of a write",
                Bytes,
            ),
            Self::AsyncPingPong => (
                "async-ping-pong",
                "Round trips of 64 bytes between two tasks",
                Operations,
            ),
            Self::AsyncConnections => (
                "async-connections",
                "One request on each of 1,000 connections between two tasks",
                Operations,
            ),
        }
    }
}

/// Does a number of units, and returns what that cost.
pub(crate) type Job = Box<dyn Fn(u64) -> io::Result<Sample>>;

/// One case of a workload, for every row that can do it.
pub(crate) struct Group {
    /// The kind of job.
    pub(crate) workload: Workload,
    /// The case: the size of a write, for example.
    pub(crate) case: &'static str,
    /// The rows by name, the reference first.
    pub(crate) rows: Vec<(&'static str, Job)>,
}

impl Group {
    /// Returns the name of a cell in filters and messages.
    pub(crate) fn cell_name(&self, row: &str) -> String {
        cell_name(self.workload, self.case, row)
    }
}

/// Returns the name of a cell in filters and messages.
pub(crate) fn cell_name(workload: Workload, case: &str, row: &str) -> String {
    format!("{}/{case}/{row}", workload.name())
}
