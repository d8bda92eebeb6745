// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use super::empties::Empties;
use super::packets::PacketWindow;
use crate::{Credit, Violation};

/// What we may send to the peer.
#[derive(Clone, Debug)]
pub(crate) struct SendWindow {
    start: u32,
    sent: u32,
    acked: u32,
    peer_buf_alloc: u32,
    packet_overhead: u32,
    packets: PacketWindow,
    empties: Empties,
}

/// The effect of the peer's credit on what may be sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum CreditChange {
    /// More may be sent than before.
    More,
    /// No more may be sent than before.
    None,
}

impl CreditChange {
    const fn more_if(opens: bool) -> Self {
        if opens { Self::More } else { Self::None }
    }
}

/// What Linux charges for a packet, in bytes: 576, or 640 on machines with cache lines of 128
/// bytes. It resets the connection when its queue holds more packets than its buffer could pay for.
const CHARGE: u32 = 640;

/// Linux merges a packet of a stream with at most this many bytes into the previous one if that has
/// room. The packet then takes no separate place.
const MERGED: u32 = 128;

/// The largest distance between two counters that can be distinguished from a step backwards. No
/// real buffer is this large; a peer that claims a larger one is treated as if it had this size.
const MAX_IN_FLIGHT: u32 = i32::MAX as u32;

/// Whether an extra packet may be sent although the packet limit is reached.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ExtraPackets {
    None,
    One,
}

impl ExtraPackets {
    pub(crate) const fn one_if(condition: bool) -> Self {
        if condition { Self::One } else { Self::None }
    }
}

impl SendWindow {
    /// Creates a window without credit. `packet_overhead` is the assumed cost of each packet in
    /// flight, in bytes of the peer's buffer; zero leaves the number of packets unbounded.
    #[must_use]
    pub(crate) fn new(packet_overhead: u32) -> Self {
        Self {
            start: 0,
            sent: 0,
            acked: 0,
            peer_buf_alloc: 0,
            packet_overhead,
            packets: PacketWindow::new(),
            empties: Empties::default(),
        }
    }

    /// Sets the credit of the REQUEST or the RESPONSE. Both fields count: our counter starts
    /// wherever the peer's does.
    pub(crate) fn start(&mut self, credit: Credit) {
        self.start = credit.fwd_cnt;
        self.sent = credit.fwd_cnt;
        self.acked = credit.fwd_cnt;
        self.peer_buf_alloc = credit.buf_alloc;
    }

    /// Applies the credit of any other packet.
    ///
    /// A driver fills in a header before it queues the packet, so two packets of one connection may
    /// arrive in reverse order. An older `fwd_cnt` therefore revokes nothing.
    ///
    /// # Errors
    ///
    /// [`Violation::ForwardedUnsent`] if the peer claims bytes that were never sent. The window is
    /// unchanged.
    pub(crate) fn update(&mut self, credit: Credit) -> Result<CreditChange, Violation> {
        // Three cases are possible: `fwd_cnt` advances within the bytes in flight, it repeats the
        // known value or an older one, or it is ahead of what was sent.
        let advance = credit.fwd_cnt.wrapping_sub(self.acked);
        let stale = self.acked.wrapping_sub(credit.fwd_cnt) <= MAX_IN_FLIGHT;
        if advance > self.in_flight() && !stale {
            return Err(Violation::ForwardedUnsent {
                fwd_cnt: credit.fwd_cnt,
                sent: self.sent,
            });
        }
        let before = self.peer_buf_alloc;
        self.peer_buf_alloc = credit.buf_alloc;
        if stale {
            return Ok(CreditChange::more_if(credit.buf_alloc > before));
        }
        self.acked = credit.fwd_cnt;
        self.packets.retire(self.acked, self.sent);
        self.empties.retire(self.acked, self.sent);
        Ok(CreditChange::More)
    }

    /// Applies the credit of a credit update, like [`update`](Self::update). An update that repeats
    /// the known credit may mean that an empty message was read.
    ///
    /// # Errors
    ///
    /// As for [`update`](Self::update).
    pub(crate) fn on_credit_update(&mut self, credit: Credit) -> Result<CreditChange, Violation> {
        if credit.fwd_cnt == self.acked && credit.buf_alloc == self.peer_buf_alloc {
            return Ok(CreditChange::more_if(self.empties.repeated()));
        }
        self.update(credit)
    }

    /// Records that the peer was asked for credit. It answers with a credit update.
    pub(crate) const fn on_asked(&mut self) {
        self.empties.asked();
    }

    /// Records that a packet with `len` bytes of payload was sent. If `len` is 0, it was an empty
    /// message.
    pub(crate) fn on_sent(&mut self, len: u32) {
        debug_assert!(len <= self.free(), "sent beyond the peer's credit");
        self.sent = self.sent.wrapping_add(len);
        if len == 0 {
            self.empties.push(self.sent);
        } else {
            self.packets.push(self.sent, self.packet_limit());
        }
    }

    /// Records that an extra packet with `len` bytes of a stream was sent. Returns whether another
    /// may follow, which depends on whether this one was worth its place.
    ///
    /// A packet with a separate place is worth it if it has at least its share of the free bytes:
    /// if all extra packets do, bytes run out before places. A packet that is merged into the
    /// previous one is worth it if it is as long as such a packet can be.
    pub(crate) fn on_sent_extra(&mut self, len: u32) -> ExtraPackets {
        debug_assert!(len <= self.extra_bytes(), "more than the peer can hold");
        let places = self.extra_limit().saturating_sub(self.unacked()).max(1);
        let share = self.free().div_ceil(places);
        self.sent = self.sent.wrapping_add(len);
        if len <= MERGED {
            self.packets.extend(self.sent);
            return ExtraPackets::one_if(len == MERGED);
        }
        self.packets.push(self.sent, self.packet_limit());
        ExtraPackets::one_if(len >= share)
    }

    /// Returns how many bytes an extra packet of a stream may have.
    ///
    /// While extra packets may take a separate place, the credit is the only limit; after that,
    /// the packet must be short enough to be merged. It may have none when Linux has no place left,
    /// because Linux resets the connection before it considers merging.
    pub(crate) fn extra_bytes(&self) -> u32 {
        let unacked = self.unacked();
        if unacked >= self.last_place() {
            0
        } else if unacked < self.extra_limit() {
            self.free()
        } else {
            self.free().min(MERGED)
        }
    }

    /// Returns how many bytes may be sent now.
    #[must_use]
    pub(crate) fn free(&self) -> u32 {
        self.peer_buf_alloc
            .min(MAX_IN_FLIGHT)
            .saturating_sub(self.in_flight())
    }

    /// Returns how many packets may be sent now.
    #[must_use]
    pub(crate) fn packets_free(&self) -> u32 {
        self.packet_limit().saturating_sub(self.unacked())
    }

    /// Returns whether the packet limit is reached, or nearly reached while many bytes are left.
    #[must_use]
    pub(crate) fn packets_scarce(&self) -> bool {
        let limit = self.packet_limit();
        let bytes_last = self.in_flight() <= self.peer_buf_alloc / 2;
        let unacked = self.unacked();
        unacked >= limit || bytes_last && unacked > limit / 2
    }

    /// Returns how many sent bytes the peer has not yet taken out of its buffer.
    #[must_use]
    pub(crate) const fn in_flight(&self) -> u32 {
        self.sent.wrapping_sub(self.acked)
    }

    /// Returns the credit that the peer has reported, with `fwd_cnt` counted from the beginning of
    /// the connection.
    #[must_use]
    pub(crate) const fn peer_credit(&self) -> Credit {
        Credit {
            buf_alloc: self.peer_buf_alloc,
            fwd_cnt: self.acked.wrapping_sub(self.start),
        }
    }

    /// Returns the size of the peer's buffer.
    #[must_use]
    pub(crate) const fn peer_buf_alloc(&self) -> u32 {
        self.peer_buf_alloc
    }

    /// Returns the maximum number of packets that can be in the peer's queue.
    const fn unacked(&self) -> u32 {
        self.packets.unacked().saturating_add(self.empties.unread())
    }

    /// Returns the packet limit including extra packets that take a separate place: three
    /// eighths above the normal limit, but always below the number of places that Linux has.
    fn extra_limit(&self) -> u32 {
        let limit = self.packet_limit();
        let most = limit.saturating_add(limit / 4).saturating_add(limit / 8);
        most.min(self.last_place().saturating_sub(1))
    }

    /// Returns the number of places in Linux's queue.
    const fn last_place(&self) -> u32 {
        self.peer_buf_alloc / CHARGE
    }

    /// Returns the maximum number of packets in flight. It is at least 1: otherwise, a peer whose
    /// buffer is smaller than the overhead of one packet would never receive a byte.
    fn packet_limit(&self) -> u32 {
        self.peer_buf_alloc
            .checked_div(self.packet_overhead)
            .map_or(u32::MAX, |packets| packets.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::{MERGED, SendWindow};
    use crate::Credit;

    /// What Linux charges for a packet on common machines.
    const LINUX_CHARGE: u32 = 576;
    /// How many bytes fit into one of Linux's receive buffers, into which it merges packets.
    const ROOM: u32 = 4096 - 44 - 320;

    /// Simulates a guest that never reads, and packets that take the most places for the fewest
    /// bytes.
    #[test]
    fn t128_no_buffer_gets_more_packets_than_linux_accepts() {
        for buf_alloc in (576..20_000)
            .step_by(17)
            .chain((20_000..300_000).step_by(4001))
        {
            let mut window = SendWindow::new(1024);
            window.start(Credit {
                buf_alloc,
                fwd_cnt: 0,
            });
            let (mut places, mut tail) = (0, ROOM);
            loop {
                let within = window.packets_free() > 0;
                let most = if within {
                    window.free()
                } else {
                    window.extra_bytes()
                };
                let len = most.min(MERGED + 1);
                if len == 0 {
                    break;
                }
                assert!(
                    (places + 1) * LINUX_CHARGE <= buf_alloc,
                    "{places} places are taken in a buffer of {buf_alloc} bytes"
                );
                if len <= MERGED && tail + len < ROOM {
                    tail += len;
                } else {
                    places += 1;
                    tail = len;
                }
                if within {
                    window.on_sent(len);
                } else {
                    window.on_sent_extra(len);
                }
            }
            let all = window.free() == 0 || buf_alloc < 1280;
            assert!(all, "{} of {buf_alloc} bytes are never sent", window.free());
        }
    }
}
