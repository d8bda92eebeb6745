// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

/// The number of marks in a window. A constant, so that no packet causes an allocation.
const MARKS: usize = 16;

/// Counts the packets that the peer has not yet taken out of its queue.
///
/// Byte credit alone does not protect a connection with small packets: a Linux guest charges a few
/// hundred bytes of overhead for each queued packet, and since 6.12.92 it resets the connection
/// when this overhead exceeds `buf_alloc`, however little payload there is. The number of packets
/// in flight is therefore bounded as well.
///
/// A packet is retired when `fwd_cnt` passes its end. Storing every end would need unbounded
/// memory, so each of sixteen marks stands for a run of packets that is retired as a whole. The
/// count can thus be too high by one run, a sixteenth of the limit, but is never too low.
#[derive(Clone, Debug, Default)]
pub(super) struct PacketWindow {
    marks: [Mark; MARKS],
    first: usize,
    used: usize,
    unacked: u32,
}

/// A run of packets: its length, and the sender's counter at its end.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    end: u32,
    packets: u32,
}

impl PacketWindow {
    /// Creates a window with no packets in flight.
    #[must_use]
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Records that a packet was sent, after which the sender's counter is `end`. `limit` is the
    /// maximum number of packets in flight, which determines the length of a run.
    pub(super) fn push(&mut self, end: u32, limit: u32) {
        self.unacked = self.unacked.saturating_add(1);
        let run = (limit >> MARKS.ilog2()).max(1);
        let full = self.used == MARKS;
        // Extend the last run until it is full. If no mark is free, extend it beyond that: the
        // count stays correct, and only becomes coarser.
        if let Some(last) = self.used.checked_sub(1) {
            let mark = self.mark(last);
            if full || mark.packets < run {
                mark.end = end;
                mark.packets = mark.packets.saturating_add(1);
                return;
            }
        }
        *self.mark(self.used) = Mark { end, packets: 1 };
        self.used = self.used.saturating_add(1);
    }

    /// Records that a packet was sent that takes no separate place, because the peer merges it
    /// into the previous one.
    pub(super) fn extend(&mut self, end: u32) {
        match self.used.checked_sub(1) {
            Some(last) => self.mark(last).end = end,
            None => self.push(end, 0),
        }
    }

    /// Retires every run that ends at or before `acked`, when the sender's counter is `sent`.
    pub(super) fn retire(&mut self, acked: u32, sent: u32) {
        let in_flight = sent.wrapping_sub(acked);
        while self.used > 0 {
            let mark = *self.mark(0);
            // Compare distances from `sent`, because the counters wrap: a run that ends nearer to
            // `sent` than `acked` does is still in flight.
            if sent.wrapping_sub(mark.end) < in_flight {
                return;
            }
            self.unacked = self.unacked.saturating_sub(mark.packets);
            self.first = self.first.wrapping_add(1) % MARKS;
            self.used = self.used.saturating_sub(1);
        }
    }

    /// Returns the number of packets in flight.
    #[must_use]
    pub(super) const fn unacked(&self) -> u32 {
        self.unacked
    }

    #[expect(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        reason = "an index modulo the length is in range, and both operands are at most 16"
    )]
    fn mark(&mut self, index: usize) -> &mut Mark {
        &mut self.marks[(self.first + index) % MARKS]
    }
}
