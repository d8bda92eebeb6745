// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How much may be under way: the two windows of a connection (virtio 1.3, 5.10.6.3).
//!
//! Each side tells the other `buf_alloc`, the size of its receive buffer, and `fwd_cnt`, how many
//! bytes it has taken out of it so far. The sender counts what it has sent, `tx_cnt`, and may send
//!
//! ```text
//! free = buf_alloc - (tx_cnt - fwd_cnt)
//! ```
//!
//! more bytes. The inner difference is that of two counters which wrap at 2^32, so it is taken
//! modulo 2^32. The outer one is not: where a peer shrinks its buffer below what is under way, the
//! result is zero, not four gigabytes.
//!
//! No other module subtracts counters. [`SendWindow`] is what we may send, [`RecvWindow`] what the
//! peer may send to us, [`packets`] bounds how many packets are under way, whatever their size.

mod empties;
mod packets;
mod send;

pub(crate) use send::{CreditChange, ExtraPackets, SendWindow};

use crate::{Credit, Violation};

/// What the peer may send to us.
///
/// A byte is *received* when its packet arrives and *forwarded* when the host has taken it, be it
/// immediately or out of the backlog later. Between the two it takes room in the buffer.
///
/// Where another guest is at the far end, a byte is credited only when that guest has taken it, and
/// the peer knows of no larger buffer than that guest has. What is forwarded and not taken is in
/// that guest's buffer, or on its way there, and takes no room in ours: so the buffer that is told
/// may be larger than ours, by as much as is there.
#[derive(Clone, Debug)]
pub(crate) struct RecvWindow {
    buf_alloc: u32,
    start: u32,
    received: u32,
    forwarded: u32,
    /// What the peer was told last.
    told: Credit,
    /// What the far guest has told, by the peer's counters.
    far: Option<Credit>,
}

/// The share of the window that an update gives back at least: a quarter, so that one is worth many
/// packets.
const UPDATE_SHARE: u32 = 4;

/// The share of the window down to which a peer's room may fall before it is told of more: half.
const KNOWN_SHARE: u32 = 2;

/// The room that it has left in any case, if its window is as large, so that it never waits for
/// some: as many bytes as a packet of any guest has at most.
const LARGEST_PACKET: u32 = 64 * 1024;

impl RecvWindow {
    /// An empty buffer of `buf_alloc` bytes whose counters stand at `start`: zero for a new
    /// connection.
    #[must_use]
    pub(crate) const fn new(buf_alloc: u32, start: u32) -> Self {
        Self {
            buf_alloc,
            start,
            received: start,
            forwarded: start,
            told: Credit {
                buf_alloc,
                fwd_cnt: start,
            },
            far: None,
        }
    }

    /// Takes `len` bytes into the buffer.
    ///
    /// # Errors
    ///
    /// [`Violation::CreditOverrun`]: there is no room for them. The window is as it was.
    pub(crate) fn receive(&mut self, len: u32) -> Result<(), Violation> {
        let used = self.used();
        if len > self.buf_alloc.saturating_sub(used) {
            return Err(Violation::CreditOverrun {
                used,
                len,
                buf_alloc: self.buf_alloc,
            });
        }
        self.received = self.received.wrapping_add(len);
        Ok(())
    }

    /// Notes that the host has taken `len` bytes, or that they were thrown away.
    pub(crate) fn forward(&mut self, len: u32) {
        debug_assert!(len <= self.used(), "forwarded what was not received");
        self.forwarded = self.forwarded.wrapping_add(len);
    }

    /// Bytes in the buffer.
    #[must_use]
    pub(crate) const fn used(&self) -> u32 {
        self.received.wrapping_sub(self.forwarded)
    }

    /// Notes what the guest at the far end has told of its buffer; its counter began at zero.
    /// `None`: there is no such guest (any more), and what is forwarded is credited.
    ///
    /// What was told is not taken back, and nothing is credited that was not forwarded, whatever
    /// the far end says.
    pub(crate) fn set_far(&mut self, far: Option<Credit>) {
        self.far = far.map(|far| Credit {
            fwd_cnt: self.start.wrapping_add(far.fwd_cnt),
            ..far
        });
    }

    /// What of a far guest's `fwd_cnt` can be told now: from what was told up to what was
    /// forwarded.
    fn tellable(&self, fwd_cnt: u32) -> u32 {
        let told = self.told.fwd_cnt;
        let span = self.forwarded.wrapping_sub(told);
        let advance = match fwd_cnt.wrapping_sub(told) {
            advance if advance <= span => advance,
            advance if advance > i32::MAX as u32 => 0,
            _ => span,
        };
        told.wrapping_add(advance)
    }

    /// Whether credit of the far guest is worth to be heard of now: the peer has little room left.
    #[must_use]
    pub(crate) fn awaits_far(&self, peer_buf_alloc: u32) -> bool {
        self.far.is_some() && self.is_little(peer_buf_alloc)
    }

    /// Whether the peer should be told without being asked: there is enough to tell, and the room
    /// that it knows of is no more than half of its window, or than the largest packet needs. That
    /// it has less room than it knows of is to be told in any case.
    ///
    /// The peer's window is the smaller of our buffer and, with kernels that cap what is under way
    /// at the socket's own buffer, `peer_buf_alloc`. An update that waits for a share of *our*
    /// buffer may come after such a peer has stopped.
    ///
    /// So a peer that asks for nothing is never left without room for a whole packet, once the host
    /// has taken all that came, if the packet has at most 64 KiB and at most three quarters of the
    /// window. For a larger one, where the window is smaller than 86 KiB, it has to ask.
    ///
    /// With another guest at the far end, whose program may wait until its buffer is full, a peer
    /// that knows of no room at all is told of any.
    #[must_use]
    pub(crate) fn update_due(&self, peer_buf_alloc: u32) -> bool {
        let share = (self.window(peer_buf_alloc) / UPDATE_SHARE).max(1);
        let gain = self.gain(peer_buf_alloc);
        let spent = self.far.is_some() && gain > 0 && self.known_room(peer_buf_alloc) == 0;
        gain < 0 || spent || gain >= i64::from(share) && self.is_little(peer_buf_alloc)
    }

    /// Bytes that the peer may send and does not know of; negative if it knows of more than there
    /// are.
    #[must_use]
    pub(crate) fn gain(&self, peer_buf_alloc: u32) -> i64 {
        let (offer, told) = (self.offer(), self.told);
        let forward = offer.fwd_cnt.wrapping_sub(told.fwd_cnt);
        let size = |credit: Credit| i64::from(credit.buf_alloc.min(peer_buf_alloc));
        // Three numbers of 32 bits: nothing saturates.
        i64::from(forward)
            .saturating_add(size(offer))
            .saturating_sub(size(told))
    }

    /// Whether the peer knows of little room.
    fn is_little(&self, peer_buf_alloc: u32) -> bool {
        let little = (self.window(peer_buf_alloc) / KNOWN_SHARE).max(LARGEST_PACKET);
        self.known_room(peer_buf_alloc) <= little
    }

    /// Bytes that the peer knows it may send.
    fn known_room(&self, peer_buf_alloc: u32) -> u32 {
        let under_way = self.received.wrapping_sub(self.told.fwd_cnt);
        let told = self.told.buf_alloc.min(peer_buf_alloc);
        told.saturating_sub(under_way)
    }

    /// The most that the peer may have under way.
    fn window(&self, peer_buf_alloc: u32) -> u32 {
        self.offer().buf_alloc.min(peer_buf_alloc)
    }

    /// What the peer may be told.
    fn offer(&self) -> Credit {
        match self.far {
            None => Credit {
                buf_alloc: self.buf_alloc,
                fwd_cnt: self.forwarded,
            },
            Some(Credit { buf_alloc, fwd_cnt }) => {
                let fwd_cnt = self.tellable(fwd_cnt);
                let beyond = self.forwarded.wrapping_sub(fwd_cnt);
                let most = self.buf_alloc.saturating_add(beyond);
                Credit {
                    buf_alloc: buf_alloc.min(most),
                    fwd_cnt,
                }
            }
        }
    }

    /// What a packet that is sent now tells the peer.
    pub(crate) fn advertise(&mut self) -> Credit {
        self.told = self.offer();
        self.told
    }
}

#[cfg(test)]
mod tests;
