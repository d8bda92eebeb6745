// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The state that the guest's kernel keeps for a socket.

use std::collections::VecDeque;

use vsock_proto::{ConnKey, Credit, Header, MessageFlags, ShutdownFlags, SocketType, Tick};

use super::config::GuestConfig;

/// The maximum payload of a packet from the guest, in bytes.
pub(super) const MAX_PACKET: u32 = 64 * 1024;
/// The maximum length of a packet that is merged into the previous one, in bytes.
const MERGED: usize = 128;

/// The state of a socket of the guest.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SocketState {
    /// The REQUEST was sent, and no answer has arrived.
    Connecting,
    /// The socket is connected, perhaps in one direction only.
    Connected,
    /// The program has closed the socket; the peer's RST is awaited.
    Closing,
    /// The connection has ended in an orderly way. Received bytes can still be read.
    Ended,
    /// The connect was refused, or was not answered.
    Refused,
    /// The peer, or the kernel, has reset the connection.
    Reset,
}

impl SocketState {
    /// Returns whether the kernel has a record of the connection.
    pub(crate) const fn is_live(self) -> bool {
        matches!(self, Self::Connecting | Self::Connected | Self::Closing)
    }
}

/// The result of a read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum GuestRead {
    /// These bytes were read.
    Bytes(Vec<u8>),
    /// No bytes are available now.
    Nothing,
    /// The peer has ended its sending.
    End,
}

/// A packet in the receive queue.
#[derive(Debug)]
struct Queued {
    len: usize,
    unread: usize,
    flags: MessageFlags,
}

#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) key: ConnKey,
    pub(crate) socket_type: SocketType,
    pub(crate) state: SocketState,
    pub(crate) deadline: Option<Tick>,
    /// The directions that the program has shut down.
    pub(crate) ours: ShutdownFlags,
    /// The directions that the peer has shut down.
    pub(crate) theirs: ShutdownFlags,
    buf_alloc: u32,
    /// The largest buffer that was ever reported to the peer: bytes that are in flight when the
    /// buffer shrinks still arrive.
    largest: u32,
    packet_overhead: u32,
    /// The maximum payload of a packet into which others were merged; zero if none are merged.
    merged_most: usize,
    /// How many bytes a reader waits for.
    lowat: usize,
    caps_credit: bool,
    updates_when_empty: bool,
    queue: VecDeque<u8>,
    packets: VecDeque<Queued>,
    /// The rest of the message that is being sent, and the flags of its end.
    pub(crate) unsent: Option<(VecDeque<u8>, MessageFlags)>,
    /// Whether the kernel has reset the connection because it received more than it could hold.
    pub(crate) overrun: bool,
    /// Bytes of packets that were not yet read to their ends.
    used: usize,
    fwd_cnt: u32,
    last_fwd_cnt: u32,
    tx_cnt: u32,
    peer: Credit,
}

impl Socket {
    pub(crate) fn new(
        key: ConnKey,
        socket_type: SocketType,
        state: SocketState,
        config: &GuestConfig,
    ) -> Self {
        Self {
            key,
            socket_type,
            state,
            deadline: None,
            ours: ShutdownFlags::NONE,
            theirs: ShutdownFlags::NONE,
            buf_alloc: config.buf_alloc,
            largest: config.buf_alloc,
            packet_overhead: config.packet_overhead,
            merged_most: if config.merges_small_packets {
                config.rx_buffer_bytes.saturating_sub(Header::LEN)
            } else {
                0
            },
            lowat: 1,
            caps_credit: config.caps_credit,
            updates_when_empty: config.updates_when_empty,
            queue: VecDeque::new(),
            packets: VecDeque::new(),
            unsent: None,
            overrun: false,
            used: 0,
            fwd_cnt: 0,
            last_fwd_cnt: 0,
            tx_cnt: 0,
            peer: Credit::default(),
        }
    }

    /// Returns whether neither side has ended the sending.
    pub(crate) fn is_writable(&self) -> bool {
        self.state == SocketState::Connected
            && !self.ours.contains(ShutdownFlags::SEND)
            && !self.theirs.contains(ShutdownFlags::RECEIVE)
    }

    /// Starts the receive counter here, so that a test can make it wrap.
    pub(crate) fn start_at(&mut self, fwd_cnt: u32) {
        self.fwd_cnt = fwd_cnt;
        self.last_fwd_cnt = fwd_cnt;
    }

    /// Sets the credit in the peer's first packet, whose counter may start anywhere.
    pub(crate) fn begin(&mut self, credit: Credit) {
        self.peer = credit;
        self.tx_cnt = credit.fwd_cnt;
    }

    pub(crate) fn on_credit(&mut self, credit: Credit) {
        self.peer = credit;
    }

    /// Returns the credit for a packet that is sent now.
    pub(crate) fn advertise(&mut self) -> Credit {
        self.last_fwd_cnt = self.fwd_cnt;
        Credit {
            buf_alloc: self.buf_alloc,
            fwd_cnt: self.fwd_cnt,
        }
    }

    pub(crate) fn resize(&mut self, buf_alloc: u32) {
        self.buf_alloc = buf_alloc;
        self.largest = self.largest.max(buf_alloc);
    }

    /// Returns whether the socket's own buffer allows it to send at all, whatever the credit.
    pub(crate) fn may_send(&self) -> bool {
        !self.caps_credit || self.buf_alloc > 0
    }

    /// Returns how many bytes may be in flight, which is also the maximum length of a message.
    pub(crate) fn tx_window(&self) -> u32 {
        if self.caps_credit {
            self.peer.buf_alloc.min(self.buf_alloc)
        } else {
            self.peer.buf_alloc
        }
    }

    /// Returns how many bytes may be sent now.
    pub(crate) fn tx_room(&self) -> usize {
        let in_flight = self.tx_cnt.wrapping_sub(self.peer.fwd_cnt);
        self.tx_window().saturating_sub(in_flight) as usize
    }

    /// Returns the next packet of the current message, as far as the credit allows.
    pub(crate) fn next_piece(&mut self) -> Option<(Vec<u8>, MessageFlags)> {
        let most = self.tx_room().min(MAX_PACKET as usize);
        let (rest, end) = self.unsent.as_mut()?;
        if most == 0 && !rest.is_empty() {
            return None;
        }
        let len = most.min(rest.len());
        let piece = rest.drain(..len).collect();
        let flags = if rest.is_empty() {
            *end
        } else {
            MessageFlags::NONE
        };
        if rest.is_empty() {
            self.unsent = None;
        }
        Some((piece, flags))
    }

    pub(crate) fn on_sent(&mut self, len: u32) {
        self.tx_cnt = self.tx_cnt.wrapping_add(len);
    }

    /// Accepts a payload. Returns `false` if the kernel would reset the connection because of it.
    pub(crate) fn enqueue(&mut self, payload: &[u8], flags: MessageFlags) -> bool {
        if self.used + payload.len() > self.largest as usize {
            return false;
        }
        let packets = self.packets.len() + 1;
        let overhead = packets * self.packet_overhead as usize;
        if packets > 1 && overhead > self.largest as usize {
            return false;
        }
        self.queue.extend(payload);
        self.used += payload.len();
        let mergeable = |last: &&mut Queued| {
            payload.len() <= MERGED
                && last.len + payload.len() < self.merged_most
                && !last.flags.ends_message()
        };
        if let Some(last) = self.packets.back_mut().filter(mergeable) {
            last.len += payload.len();
            last.unread += payload.len();
            last.flags = flags;
            return true;
        }
        self.packets.push_back(Queued {
            len: payload.len(),
            unread: payload.len(),
            flags,
        });
        true
    }

    /// Removes bytes for the program. Returns whether an update must be sent to the peer.
    pub(crate) fn dequeue(&mut self, most: usize) -> (Vec<u8>, bool) {
        let len = most.min(self.queue.len());
        let bytes: Vec<u8> = self.queue.drain(..len).collect();
        let mut left = len;
        // As in Linux, a packet returns its room only when it has been read to its end.
        while let Some(first) = self.packets.front_mut() {
            let taken = left.min(first.unread);
            first.unread -= taken;
            left -= taken;
            if first.unread > 0 {
                break;
            }
            self.used -= first.len;
            let given = u32::try_from(first.len).unwrap_or(u32::MAX);
            self.fwd_cnt = self.fwd_cnt.wrapping_add(given);
            self.packets.pop_front();
        }
        let unseen = self.fwd_cnt.wrapping_sub(self.last_fwd_cnt);
        let scarce = self.buf_alloc.saturating_sub(unseen) < MAX_PACKET;
        (bytes, unseen > 0 && (scarce || self.lacks_bytes()))
    }

    /// Returns whether to tell the peer that a reader waits for more bytes than are available.
    fn lacks_bytes(&self) -> bool {
        self.updates_when_empty && self.queue.len() < self.lowat
    }

    /// Returns bytes of the queue without removing them.
    pub(crate) fn peek(&self, most: usize) -> Vec<u8> {
        self.queue.iter().take(most).copied().collect()
    }

    /// Sets how many bytes a reader waits for. Returns whether an update must be sent to the peer.
    pub(crate) fn set_lowat(&mut self, bytes: usize) -> bool {
        self.lowat = bytes.max(1);
        self.unseen() > 0 && self.lacks_bytes()
    }

    /// Returns whether a reader would be woken.
    pub(crate) fn is_readable(&self) -> bool {
        let ended = self.theirs.contains(ShutdownFlags::SEND);
        match self.socket_type {
            SocketType::Stream => ended || self.queue.len() >= self.lowat,
            SocketType::SeqPacket => ended || self.queued() > 0,
        }
    }

    /// Removes the next complete message, and with it all of its room.
    pub(crate) fn dequeue_message(&mut self) -> Option<(Vec<u8>, MessageFlags)> {
        let ends = |packet: &Queued| packet.flags.ends_message();
        let last = self.packets.iter().position(ends)?;
        let (mut len, mut flags) = (0, MessageFlags::NONE);
        for packet in self.packets.drain(..=last) {
            len += packet.len;
            flags = packet.flags;
        }
        self.used -= len;
        let given = u32::try_from(len).unwrap_or(u32::MAX);
        self.fwd_cnt = self.fwd_cnt.wrapping_add(given);
        Some((self.queue.drain(..len).collect(), flags))
    }

    /// Returns the number of bytes or messages that can be read.
    pub(crate) fn queued(&self) -> usize {
        match self.socket_type {
            SocketType::Stream => self.queue.len(),
            SocketType::SeqPacket => {
                let whole = self.packets.iter().filter(|one| one.flags.ends_message());
                whole.count()
            }
        }
    }

    /// Returns how many bytes and packets the kernel would still accept.
    pub(crate) fn rx_room(&self) -> (usize, usize) {
        let bytes = (self.buf_alloc as usize).saturating_sub(self.used);
        let most = (self.buf_alloc as usize)
            .checked_div(self.packet_overhead as usize)
            .map_or(usize::MAX, |packets| packets.max(1));
        (bytes, most.saturating_sub(self.packets.len()))
    }

    /// Returns how many bytes of the window have become free without the peer's knowledge.
    pub(crate) fn unseen(&self) -> u32 {
        self.fwd_cnt.wrapping_sub(self.last_fwd_cnt)
    }

    pub(crate) fn end(&mut self, state: SocketState) {
        self.state = state;
        self.deadline = None;
        self.unsent = None;
        self.theirs = ShutdownFlags::BOTH;
    }
}
