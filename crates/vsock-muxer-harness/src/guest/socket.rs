// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A socket of the guest: what its kernel keeps for it.

use std::collections::VecDeque;

use vsock_proto::{ConnKey, Credit, Header, MessageFlags, ShutdownFlags, SocketType, Tick};

use super::config::GuestConfig;

/// Bytes of payload in one packet of the guest at most.
pub(super) const MAX_PACKET: u32 = 64 * 1024;
/// Bytes of a packet that is added to the one before it at most.
const MERGED: usize = 128;

/// Where a socket of the guest is in its life.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SocketState {
    /// Its REQUEST has been sent; no answer has come.
    Connecting,
    /// It is connected, perhaps in one direction only.
    Connected,
    /// The application has closed it; the peer's RST is awaited.
    Closing,
    /// The connection is over in an orderly way. What has been received can be read.
    Ended,
    /// The connect was refused, or had no answer.
    Refused,
    /// The peer, or the kernel, has reset the connection.
    Reset,
}

impl SocketState {
    /// Whether the kernel still knows the tuple.
    pub(crate) const fn is_live(self) -> bool {
        matches!(self, Self::Connecting | Self::Connected | Self::Closing)
    }
}

/// What a read finds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum GuestRead {
    /// These bytes.
    Bytes(Vec<u8>),
    /// Nothing for now.
    Nothing,
    /// The end of what the peer sends.
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
    /// What the application has shut down.
    pub(crate) ours: ShutdownFlags,
    /// What the peer has.
    pub(crate) theirs: ShutdownFlags,
    buf_alloc: u32,
    /// The largest buffer that the peer was told of: what is under way when it shrinks still comes.
    largest: u32,
    packet_overhead: u32,
    /// Bytes of payload in one packet at most that others were added to; none where none are.
    merged_most: usize,
    /// Bytes for which a reader waits.
    lowat: usize,
    caps_credit: bool,
    updates_when_empty: bool,
    queue: VecDeque<u8>,
    packets: VecDeque<Queued>,
    /// What is left of a message that is being sent, and the flags of its end.
    pub(crate) unsent: Option<(VecDeque<u8>, MessageFlags)>,
    /// The kernel has reset the connection because more came than it could hold.
    pub(crate) overrun: bool,
    /// Bytes of the packets that are not yet read to their ends.
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

    /// Whether neither side has ended what is sent.
    pub(crate) fn is_writable(&self) -> bool {
        self.state == SocketState::Connected
            && !self.ours.contains(ShutdownFlags::SEND)
            && !self.theirs.contains(ShutdownFlags::RECEIVE)
    }

    /// Both counters begin here, to see them wrap.
    pub(crate) fn start_at(&mut self, fwd_cnt: u32) {
        self.fwd_cnt = fwd_cnt;
        self.last_fwd_cnt = fwd_cnt;
    }

    /// The credit that comes with the first packet of the peer: its counter may begin anywhere.
    pub(crate) fn begin(&mut self, credit: Credit) {
        self.peer = credit;
        self.tx_cnt = credit.fwd_cnt;
    }

    pub(crate) fn on_credit(&mut self, credit: Credit) {
        self.peer = credit;
    }

    /// What a packet that is sent now tells the peer.
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

    /// Whether its own buffer lets it send at all, whatever credit it has.
    pub(crate) fn may_send(&self) -> bool {
        !self.caps_credit || self.buf_alloc > 0
    }

    /// Bytes that may be under way, and that a message may have.
    pub(crate) fn tx_window(&self) -> u32 {
        if self.caps_credit {
            self.peer.buf_alloc.min(self.buf_alloc)
        } else {
            self.peer.buf_alloc
        }
    }

    /// Bytes that may be sent now.
    pub(crate) fn tx_room(&self) -> usize {
        let in_flight = self.tx_cnt.wrapping_sub(self.peer.fwd_cnt);
        self.tx_window().saturating_sub(in_flight) as usize
    }

    /// The next packet of the message that is being sent, as far as there is credit.
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

    /// Takes a payload in; `false` if the kernel would reset the connection for it.
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

    /// Takes bytes out for the application; says whether the peer is owed an update.
    pub(crate) fn dequeue(&mut self, most: usize) -> (Vec<u8>, bool) {
        let len = most.min(self.queue.len());
        let bytes: Vec<u8> = self.queue.drain(..len).collect();
        let mut left = len;
        // As in Linux, only a packet that has been read to its end gives its room back.
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

    /// Whether the peer is told that a reader waits for more than there is.
    fn lacks_bytes(&self) -> bool {
        self.updates_when_empty && self.queue.len() < self.lowat
    }

    /// What a look at the queue finds, which takes nothing.
    pub(crate) fn peek(&self, most: usize) -> Vec<u8> {
        self.queue.iter().take(most).copied().collect()
    }

    /// Sets how many bytes a reader waits for; says whether the peer is owed an update.
    pub(crate) fn set_lowat(&mut self, bytes: usize) -> bool {
        self.lowat = bytes.max(1);
        self.unseen() > 0 && self.lacks_bytes()
    }

    /// Whether a reader would be woken.
    pub(crate) fn is_readable(&self) -> bool {
        let ended = self.theirs.contains(ShutdownFlags::SEND);
        match self.socket_type {
            SocketType::Stream => ended || self.queue.len() >= self.lowat,
            SocketType::SeqPacket => ended || self.queued() > 0,
        }
    }

    /// Takes the next message out, if it is whole, and all of its room with it.
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

    /// Bytes that can be read, or messages.
    pub(crate) fn queued(&self) -> usize {
        match self.socket_type {
            SocketType::Stream => self.queue.len(),
            SocketType::SeqPacket => {
                let whole = self.packets.iter().filter(|one| one.flags.ends_message());
                whole.count()
            }
        }
    }

    /// Bytes, and packets, that the kernel would still take in.
    pub(crate) fn rx_room(&self) -> (usize, usize) {
        let bytes = (self.buf_alloc as usize).saturating_sub(self.used);
        let most = (self.buf_alloc as usize)
            .checked_div(self.packet_overhead as usize)
            .map_or(usize::MAX, |packets| packets.max(1));
        (bytes, most.saturating_sub(self.packets.len()))
    }

    /// Bytes of the window that the peer does not know to be free.
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
