// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

/// Marks that the window keeps. A constant, so that nothing is allocated per packet.
const MARKS: usize = 16;

/// Counts the packets that the peer has not yet emptied.
///
/// Byte credit alone does not protect a connection of small packets: a Linux guest charges each
/// queued packet a few hundred bytes of overhead, and since 6.12.92 it resets the connection when
/// that overhead exceeds `buf_alloc`, however little payload there is. So the number of packets
/// under way is bounded too.
///
/// A packet is retired when `fwd_cnt` passes its end. The ends are not kept one by one: sixteen
/// marks each stand for a run of packets, and a run is retired as a whole. The count may thus be
/// too high by one run, a sixteenth of the limit, and is never too low.
#[derive(Clone, Debug, Default)]
pub(super) struct PacketWindow {
    marks: [Mark; MARKS],
    first: usize,
    used: usize,
    unacked: u32,
}

/// A run of packets, and the value of the sender's counter at its end.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    end: u32,
    packets: u32,
}

impl PacketWindow {
    /// A window with nothing under way.
    #[must_use]
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Notes that a packet was sent, after which the sender's counter is `end`. `limit` is how many
    /// may be under way; it sets how long a run may grow.
    pub(super) fn push(&mut self, end: u32, limit: u32) {
        self.unacked = self.unacked.saturating_add(1);
        let run = (limit >> MARKS.ilog2()).max(1);
        let full = self.used == MARKS;
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

    /// Notes that a packet was sent that takes no place of its own: the peer adds it to the one
    /// before.
    pub(super) fn extend(&mut self, end: u32) {
        match self.used.checked_sub(1) {
            Some(last) => self.mark(last).end = end,
            None => self.push(end, 0),
        }
    }

    /// Retires every run that ends at or before `acked`, where `sent` is the sender's counter.
    pub(super) fn retire(&mut self, acked: u32, sent: u32) {
        let in_flight = sent.wrapping_sub(acked);
        while self.used > 0 {
            let mark = *self.mark(0);
            // The run is done when no less lies between its end and `sent` than is under way.
            if sent.wrapping_sub(mark.end) < in_flight {
                return;
            }
            self.unacked = self.unacked.saturating_sub(mark.packets);
            self.first = self.first.wrapping_add(1) % MARKS;
            self.used = self.used.saturating_sub(1);
        }
    }

    /// Packets under way.
    #[must_use]
    pub(super) const fn unacked(&self) -> u32 {
        self.unacked
    }

    #[expect(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        reason = "an index modulo the length is in range, and both summands are at most 16"
    )]
    fn mark(&mut self, index: usize) -> &mut Mark {
        &mut self.marks[(self.first + index) % MARKS]
    }
}
