// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

/// Counters of a subscriber since it was created.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct LoopCounters {
    /// Number of wake-ups.
    pub wakeups: u64,
    /// Events reported by the kernel.
    pub events: u64,
    /// Events of a live stream that found nothing to do. A growing rate is a bug.
    pub spurious: u64,
    /// Events of a stream that was closed earlier in the same batch.
    pub stale: u64,
    /// Streams that were accepted or added.
    pub accepts: u64,
    /// Streams that were refused: at the limit, while draining, or for lack of a descriptor.
    pub refused: u64,
    /// Streams that were removed, for whatever reason.
    pub closes: u64,
    /// Bytes read.
    pub bytes_in: u64,
    /// Bytes written to streams.
    pub bytes_out: u64,
    /// Bytes that were accepted for writing but lost, because a stream failed or was closed.
    pub bytes_lost: u64,
    /// Errors of streams, of accepts, and of the loop's own descriptors.
    pub errors: u64,
    /// Expired timers: those of handlers, idle limits, and pauses of accepting.
    pub timers: u64,
    /// Panics in a handler, or in a backend's accept. A panic in a stream counts as an error
    /// instead.
    pub panics: u64,
}
