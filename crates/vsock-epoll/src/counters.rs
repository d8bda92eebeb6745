// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

/// What a subscriber has done since it was made.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct LoopCounters {
    /// How often it was woken.
    pub wakeups: u64,
    /// Events that were reported.
    pub events: u64,
    /// Events of a live stream that had nothing in them. A rate that grows is a bug.
    pub spurious: u64,
    /// Events of a stream that an earlier event of the same batch had closed.
    pub stale: u64,
    /// Streams that were accepted, or added.
    pub accepts: u64,
    /// Streams that were refused: at the limit, while draining, or for want of a descriptor.
    pub refused: u64,
    /// Streams that are gone, for whatever reason.
    pub closes: u64,
    /// Bytes read.
    pub bytes_in: u64,
    /// Bytes that streams have taken.
    pub bytes_out: u64,
    /// Bytes that were accepted for writing, and lost because a stream failed or was closed.
    pub bytes_lost: u64,
    /// Failures of streams, of accepts, and of the loop's own descriptors.
    pub errors: u64,
    /// Timers that fired: those of handlers, idle limits, and pauses of accepting.
    pub timers: u64,
    /// Calls of a handler, and accepts of a backend, that panicked. A stream that panics has
    /// failed.
    pub panics: u64,
}
