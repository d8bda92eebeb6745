// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Credit: the two flow-control windows of a connection (virtio 1.3, 5.10.6.3).
//!
//! Each side reports `buf_alloc`, the size of its receive buffer, and `fwd_cnt`, the number of
//! bytes that it has taken out of the buffer so far. The sender counts the bytes that it has sent,
//! `tx_cnt`, and may send
//!
//! ```text
//! free = buf_alloc - (tx_cnt - fwd_cnt)
//! ```
//!
//! more bytes. The inner difference is one of two counters that wrap at 2^32, so it is calculated
//! modulo 2^32. The outer difference is not: if a peer shrinks its buffer below the number of bytes
//! in flight, the result is zero and not almost 4 GiB.
//!
//! No other module subtracts counters. [`SendWindow`] is what we may send, [`RecvWindow`] is what
//! the peer may send to us, and [`packets`] bounds the number of packets in flight, whatever their
//! size.

mod empties;
mod packets;
mod send;

pub(crate) use send::{CreditChange, ExtraPackets, SendWindow};

use crate::{Credit, Violation};

/// What the peer may send to us.
///
/// A byte is *received* when its packet arrives, and *forwarded* when the host has accepted it,
/// either immediately or later from the backlog. In between, it occupies the buffer.
///
/// If another guest is at the far end, a byte is credited only when that guest has taken it, and
/// the peer learns of no larger buffer than that guest has. Bytes that were forwarded but not yet
/// taken are in the far guest's buffer or on their way there, and do not occupy ours. The buffer
/// size that we report may therefore exceed our own by that many bytes.
#[derive(Clone, Debug)]
pub(crate) struct RecvWindow {
    buf_alloc: u32,
    /// The value at which the counters started.
    start: u32,
    received: u32,
    forwarded: u32,
    /// The credit in the last packet to the peer.
    reported: Credit,
    /// The far guest's credit, converted to the peer's counters.
    far: Option<Credit>,
}

/// The share of the window that an update returns at least: a quarter, so that one update is worth
/// many packets.
const UPDATE_SHARE: u32 = 4;

/// The share of the window to which the room that the peer knows of may fall before it is told of
/// more: half.
const KNOWN_SHARE: u32 = 2;

/// The room, in bytes, below which an update is considered whatever the share: the largest packet
/// that any guest sends. With less room than its next packet needs, the peer would have to wait.
const LARGEST_PACKET: u32 = 64 * 1024;

impl RecvWindow {
    /// Creates the window of an empty buffer of `buf_alloc` bytes whose counters start at `start`,
    /// which is normally zero.
    #[must_use]
    pub(crate) const fn new(buf_alloc: u32, start: u32) -> Self {
        Self {
            buf_alloc,
            start,
            received: start,
            forwarded: start,
            reported: Credit {
                buf_alloc,
                fwd_cnt: start,
            },
            far: None,
        }
    }

    /// Records that `len` bytes have entered the buffer.
    ///
    /// # Errors
    ///
    /// [`Violation::CreditOverrun`] if the buffer has no room for them. The window is unchanged.
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

    /// Records that the host has accepted `len` bytes, or that they were discarded.
    pub(crate) fn forward(&mut self, len: u32) {
        debug_assert!(len <= self.used(), "forwarded bytes that were not received");
        self.forwarded = self.forwarded.wrapping_add(len);
    }

    /// Returns the number of bytes in the buffer.
    #[must_use]
    pub(crate) const fn used(&self) -> u32 {
        self.received.wrapping_sub(self.forwarded)
    }

    /// Sets the credit that the guest at the far end has reported; its counter starts at zero.
    /// `None` means that there is no such guest (any more), and that forwarded bytes are credited.
    ///
    /// Whatever the far end reports, credit already given is never revoked, and bytes that were not
    /// forwarded are never credited.
    pub(crate) fn set_far(&mut self, far: Option<Credit>) {
        self.far = far.map(|far| Credit {
            fwd_cnt: self.start.wrapping_add(far.fwd_cnt),
            ..far
        });
    }

    /// Converts the far guest's `fwd_cnt` to the value that can be reported now: at least the one
    /// reported last, and at most what was forwarded.
    fn reportable(&self, fwd_cnt: u32) -> u32 {
        let reported = self.reported.fwd_cnt;
        let span = self.forwarded.wrapping_sub(reported);
        // All three counters wrap, so compare distances from `reported`. A distance in the upper
        // half of the range is a step backwards: an old value, which changes nothing.
        let advance = match fwd_cnt.wrapping_sub(reported) {
            advance if advance <= span => advance,
            advance if advance > i32::MAX as u32 => 0,
            _ => span,
        };
        reported.wrapping_add(advance)
    }

    /// Returns whether news of the far guest's credit matters now: the peer has little room left.
    #[must_use]
    pub(crate) fn awaits_far(&self, peer_buf_alloc: u32) -> bool {
        self.far.is_some() && self.is_little(peer_buf_alloc)
    }

    /// Returns whether to report credit to the peer although it has not asked.
    ///
    /// An update is due if it is worth a packet, and if the peer knows of room for at most half of
    /// its window or at most 64 KiB. If the peer has less room than it knows of, an update is
    /// always due.
    ///
    /// The peer's window is the smaller of our buffer and `peer_buf_alloc`, because some kernels
    /// also limit the bytes in flight to the size of the socket's own buffer. An update that waited
    /// for a share of *our* buffer could come after such a peer has stopped.
    ///
    /// As a result, once the host has accepted everything that arrived, a peer that never asks
    /// always has room for its next packet, provided that the packet has at most 64 KiB and at most
    /// three quarters of the window. If the window is smaller than 86 KiB, the peer must ask before
    /// it can send a larger packet.
    ///
    /// If another guest is at the far end, a peer that knows of no room at all is told of any room
    /// there is, because that guest's program may not read until its buffer is full.
    #[must_use]
    pub(crate) fn update_due(&self, peer_buf_alloc: u32) -> bool {
        let share = (self.window(peer_buf_alloc) / UPDATE_SHARE).max(1);
        let gain = self.gain(peer_buf_alloc);
        let spent = self.far.is_some() && gain > 0 && self.known_room(peer_buf_alloc) == 0;
        gain < 0 || spent || gain >= i64::from(share) && self.is_little(peer_buf_alloc)
    }

    /// Returns how many more bytes the peer may send than it knows of; negative if it knows of more
    /// than it may send.
    #[must_use]
    pub(crate) fn gain(&self, peer_buf_alloc: u32) -> i64 {
        let (offer, reported) = (self.offer(), self.reported);
        let forward = offer.fwd_cnt.wrapping_sub(reported.fwd_cnt);
        let size = |credit: Credit| i64::from(credit.buf_alloc.min(peer_buf_alloc));
        // The sum of three 32-bit numbers fits into 64 bits, so nothing saturates.
        i64::from(forward)
            .saturating_add(size(offer))
            .saturating_sub(size(reported))
    }

    /// Returns whether the peer knows of little room.
    fn is_little(&self, peer_buf_alloc: u32) -> bool {
        let little = (self.window(peer_buf_alloc) / KNOWN_SHARE).max(LARGEST_PACKET);
        self.known_room(peer_buf_alloc) <= little
    }

    /// Returns how many bytes the peer knows that it may send.
    fn known_room(&self, peer_buf_alloc: u32) -> u32 {
        let in_flight = self.received.wrapping_sub(self.reported.fwd_cnt);
        let reported = self.reported.buf_alloc.min(peer_buf_alloc);
        reported.saturating_sub(in_flight)
    }

    /// Returns the most bytes that the peer may have in flight.
    fn window(&self, peer_buf_alloc: u32) -> u32 {
        self.offer().buf_alloc.min(peer_buf_alloc)
    }

    /// Returns the credit that may be reported to the peer.
    fn offer(&self) -> Credit {
        match self.far {
            None => Credit {
                buf_alloc: self.buf_alloc,
                fwd_cnt: self.forwarded,
            },
            Some(Credit { buf_alloc, fwd_cnt }) => {
                // Our buffer holds what was received and not forwarded. Bytes beyond that are in
                // the far guest's buffer, so they add to the size that may be reported.
                let fwd_cnt = self.reportable(fwd_cnt);
                let beyond = self.forwarded.wrapping_sub(fwd_cnt);
                let most = self.buf_alloc.saturating_add(beyond);
                Credit {
                    buf_alloc: buf_alloc.min(most),
                    fwd_cnt,
                }
            }
        }
    }

    /// Returns the credit for a packet that is sent now, and records it as reported.
    pub(crate) fn advertise(&mut self) -> Credit {
        self.reported = self.offer();
        self.reported
    }
}

#[cfg(test)]
mod tests;
