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

/// What credit of the peer means for what may be sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum CreditChange {
    /// More than before.
    More,
    /// No more than before.
    None,
}

impl CreditChange {
    const fn more_if(opens: bool) -> Self {
        if opens { Self::More } else { Self::None }
    }
}

/// What Linux charges for a packet: 576 bytes, or 640 where a cache line has 128. With more packets
/// in its queue than its buffer could pay for, it resets the connection.
const CHARGE: u32 = 640;

/// As many bytes of a stream Linux adds to the packet before them, if that has room: they take no
/// place of their own.
const MERGED: u32 = 128;

/// The largest distance between two counters that can be told from a step back. No real buffer is
/// this big; a peer that claims a bigger one gets no more.
const MAX_IN_FLIGHT: u32 = i32::MAX as u32;

/// Packets that may be sent although no more may be under way.
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
    /// A window without credit. `packet_overhead` is how many bytes of the peer's buffer each
    /// packet under way is taken to cost; zero leaves the number of packets unbounded.
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

    /// The credit that comes with the REQUEST or the RESPONSE. Both fields count: wherever the
    /// peer's counter stands, that is where ours begins.
    pub(crate) fn start(&mut self, credit: Credit) {
        self.start = credit.fwd_cnt;
        self.sent = credit.fwd_cnt;
        self.acked = credit.fwd_cnt;
        self.peer_buf_alloc = credit.buf_alloc;
    }

    /// The credit that comes with any other packet.
    ///
    /// A guest driver fills in a header before it queues the packet, so two packets of one
    /// connection may change places: an older `fwd_cnt` takes nothing back.
    ///
    /// # Errors
    ///
    /// [`Violation::ForwardedUnsent`]: the peer has taken bytes that were never sent. The window is
    /// as it was.
    pub(crate) fn update(&mut self, credit: Credit) -> Result<CreditChange, Violation> {
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

    /// As [`update`](Self::update), by a credit update. One that repeats what is known may stand
    /// for a message without payload that was received.
    ///
    /// # Errors
    ///
    /// As [`update`](Self::update).
    pub(crate) fn on_credit_update(&mut self, credit: Credit) -> Result<CreditChange, Violation> {
        if credit.fwd_cnt == self.acked && credit.buf_alloc == self.peer_buf_alloc {
            return Ok(CreditChange::more_if(self.empties.repeated()));
        }
        self.update(credit)
    }

    /// Notes that the peer was asked for credit, which it answers by a credit update.
    pub(crate) const fn on_asked(&mut self) {
        self.empties.asked();
    }

    /// Notes that a packet with `len` bytes of payload was sent; one without is an empty message.
    pub(crate) fn on_sent(&mut self, len: u32) {
        debug_assert!(len <= self.free(), "sent beyond the peer's credit");
        self.sent = self.sent.wrapping_add(len);
        if len == 0 {
            self.empties.push(self.sent);
        } else {
            self.packets.push(self.sent, self.packet_limit());
        }
    }

    /// Notes that a packet with `len` bytes of a stream was sent beyond the limit. Another may
    /// follow if it was worth its place: with such packets alone, bytes run out before places do.
    /// One that takes no place is worth that if it is full.
    pub(crate) fn on_sent_extra(&mut self, len: u32) -> ExtraPackets {
        debug_assert!(len <= self.extra_bytes(), "more than the peer can take");
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

    /// Bytes that a packet of a stream may have which is sent beyond the limit: any while it may
    /// take a place of its own, then as many as are added to the packet before. None where Linux
    /// has no place left, for it resets before it looks whether it could add them.
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

    /// Bytes that may be sent now.
    #[must_use]
    pub(crate) fn free(&self) -> u32 {
        self.peer_buf_alloc
            .min(MAX_IN_FLIGHT)
            .saturating_sub(self.in_flight())
    }

    /// Packets that may be sent now.
    #[must_use]
    pub(crate) fn packets_free(&self) -> u32 {
        self.packet_limit().saturating_sub(self.unacked())
    }

    /// Whether packets are about to run out, or have, while bytes would last.
    #[must_use]
    pub(crate) fn packets_scarce(&self) -> bool {
        let limit = self.packet_limit();
        let bytes_last = self.in_flight() <= self.peer_buf_alloc / 2;
        let unacked = self.unacked();
        unacked >= limit || bytes_last && unacked > limit / 2
    }

    /// Bytes sent that the peer has not yet taken out of its buffer.
    #[must_use]
    pub(crate) const fn in_flight(&self) -> u32 {
        self.sent.wrapping_sub(self.acked)
    }

    /// What the peer has told of its buffer, counted from the beginning of the connection.
    #[must_use]
    pub(crate) const fn peer_credit(&self) -> Credit {
        Credit {
            buf_alloc: self.peer_buf_alloc,
            fwd_cnt: self.acked.wrapping_sub(self.start),
        }
    }

    /// The size of the peer's buffer.
    #[must_use]
    pub(crate) const fn peer_buf_alloc(&self) -> u32 {
        self.peer_buf_alloc
    }

    /// Packets in the peer's queue at most.
    const fn unacked(&self) -> u32 {
        self.packets.unacked().saturating_add(self.empties.unread())
    }

    /// The packets beyond the limit that may take a place of their own, and those within it: never
    /// as many as Linux has places.
    fn extra_limit(&self) -> u32 {
        let limit = self.packet_limit();
        let most = limit.saturating_add(limit / 4).saturating_add(limit / 8);
        most.min(self.last_place().saturating_sub(1))
    }

    /// The last place in its queue into which Linux still takes a packet.
    const fn last_place(&self) -> u32 {
        self.peer_buf_alloc / CHARGE
    }

    /// Packets that may be under way altogether. One always may: a buffer so small that a packet's
    /// overhead fills it would otherwise never see a byte.
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

    /// What Linux charges for a packet on every usual machine.
    const LINUX_CHARGE: u32 = 576;
    /// Bytes that fit into one of its receive buffers, in which it adds packets to one another.
    const ROOM: u32 = 4096 - 44 - 320;

    /// A guest that never reads, and the packets that take the most places for the fewest bytes.
    #[test]
    fn t128_no_buffer_is_sent_more_packets_than_linux_takes() {
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
                    "{places} places of {buf_alloc} bytes are taken"
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
            assert!(all, "{} of {buf_alloc} bytes never go", window.free());
        }
    }
}
