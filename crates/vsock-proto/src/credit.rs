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
#[derive(Clone, Debug)]
pub(crate) struct RecvWindow {
    buf_alloc: u32,
    received: u32,
    forwarded: u32,
    advertised: u32,
}

/// The share of the window that an update gives back at least: a quarter, so that one is worth many
/// packets.
const UPDATE_SHARE: u32 = 4;

/// The share of the window down to which a peer's room may fall before it is told of more: half.
const KNOWN_SHARE: u32 = 2;

/// The room that it has left in any case, if its window is as large, so that it never waits for some: as
/// many bytes as a packet of any guest has at most.
const LARGEST_PACKET: u32 = 64 * 1024;

impl RecvWindow {
    /// An empty buffer of `buf_alloc` bytes whose counters stand at `start`: zero for a new
    /// connection.
    #[must_use]
    pub(crate) const fn new(buf_alloc: u32, start: u32) -> Self {
        Self {
            buf_alloc,
            received: start,
            forwarded: start,
            advertised: start,
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

    /// Whether the peer should be told without being asked: there is enough to tell, and the room that it
    /// knows of is no more than half of its window, or than the largest packet needs.
    ///
    /// The peer's window is the smaller of our buffer and, with kernels that cap what is under way
    /// at the socket's own buffer, `peer_buf_alloc`. An update that waits for a share of *our* buffer
    /// may come after such a peer has stopped.
    ///
    /// So a peer that asks for nothing is never left without room for a whole packet, once the host
    /// has taken all that came, if the packet has at most 64 KiB and at most three quarters of the window.
    /// For a larger one, where the window is smaller than 86 KiB, it has to ask.
    #[must_use]
    pub(crate) fn update_due(&self, peer_buf_alloc: u32) -> bool {
        let window = self.buf_alloc.min(peer_buf_alloc);
        let known = window.saturating_sub(self.received.wrapping_sub(self.advertised));
        self.unadvertised() >= (window / UPDATE_SHARE).max(1)
            && known <= (window / KNOWN_SHARE).max(LARGEST_PACKET)
    }

    /// Bytes forwarded that the peer does not know of.
    #[must_use]
    pub(crate) const fn unadvertised(&self) -> u32 {
        self.forwarded.wrapping_sub(self.advertised)
    }

    /// What a packet that is sent now tells the peer.
    pub(crate) fn advertise(&mut self) -> Credit {
        self.advertised = self.forwarded;
        Credit {
            buf_alloc: self.buf_alloc,
            fwd_cnt: self.forwarded,
        }
    }
}

#[cfg(test)]
mod tests;
