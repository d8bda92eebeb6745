// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use core::time::Duration;

use crate::conn::far_need::FarNeed;
use crate::credit::{ExtraPackets, SendWindow};
use crate::state::ToGuestState;
use crate::{Config, SocketType, Tick};

/// The direction from the host to the guest: the send window, and what to do when it is exhausted.
#[derive(Debug)]
pub(super) struct ToGuest {
    pub(super) state: ToGuestState,
    pub(super) window: SendWindow,
    /// Whether the host's stream was reported readable and no read has yet found it empty.
    pub(super) readable: bool,
    /// What the guest was asked for and has not yet provided.
    asked: Lack,
    /// When to ask again.
    probe_at: Option<Tick>,
    /// How many times the guest was asked without a useful answer.
    probes: u32,
    /// Whether the boundaries of packets matter: those of a stream may be merged.
    socket_type: SocketType,
    /// The extra packet that may be sent although the packet limit is reached.
    extra: ExtraPackets,
    /// Bytes sent of the current incomplete message, on a seqpacket socket.
    pub(super) message_sent: u32,
    /// The size of the far guest's buffer, which may bound what that guest has in flight.
    pub(super) far_window: Option<u32>,
    pub(super) far_need: FarNeed,
}

/// Why the guest is asked for credit. A greater value is more urgent.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Lack {
    Nothing,
    /// Many packets are in flight, some of which the guest may already have taken.
    Packets,
    Bytes,
}

/// How many times the interval between two requests doubles at most.
const MAX_DOUBLINGS: u32 = 6;

impl ToGuest {
    pub(super) fn new(config: &Config, socket_type: SocketType) -> Self {
        Self {
            state: ToGuestState::Open,
            window: SendWindow::new(config.packet_overhead()),
            readable: false,
            asked: Lack::Nothing,
            probe_at: None,
            probes: 0,
            socket_type,
            extra: ExtraPackets::None,
            message_sent: 0,
            far_window: None,
            far_need: FarNeed::default(),
        }
    }

    /// Returns whether the guest has room for payload.
    pub(super) fn has_credit(&self) -> bool {
        self.window.free() > 0 && self.packets_free() > 0
    }

    /// Returns how many packets may be sent now.
    ///
    /// The limit is only an estimate of what the guest can hold, and there are two cases in which
    /// respecting it could block both sides permanently. If nothing is in flight but part of one
    /// message, a packet may always be sent: the guest empties its buffer only when the message is
    /// complete, so it would wait for us while we wait for it. A stream may send one extra packet
    /// from time to time, because its reader may be waiting for more bytes before it takes any.
    pub(super) fn packets_free(&self) -> u32 {
        match self.window.packets_free() {
            0 if self.extra == ExtraPackets::One => (self.window.extra_bytes() > 0).into(),
            0 => (self.message_sent > 0 && self.window.in_flight() <= self.message_sent).into(),
            free => free,
        }
    }

    /// Returns how many bytes may be sent now, in [that many packets](Self::packets_free).
    pub(super) fn bytes_free(&self) -> u32 {
        if self.is_extra() {
            self.window.extra_bytes()
        } else {
            self.window.free()
        }
    }

    /// Records that a packet with `len` bytes of payload was sent. If it was an extra packet and
    /// not worth its place in the guest's queue, it is the last one for now, which gives the host
    /// time to write more.
    pub(super) fn on_sent(&mut self, len: u32) {
        if self.is_extra() {
            self.extra = self.window.on_sent_extra(len);
        } else {
            self.window.on_sent(len);
        }
    }

    /// Returns whether the next packet would be an extra packet.
    fn is_extra(&self) -> bool {
        self.extra == ExtraPackets::One && self.window.packets_free() == 0
    }

    /// Records that the guest has given credit.
    pub(super) const fn opened(&mut self) {
        self.asked = Lack::Nothing;
        self.probe_at = None;
        self.probes = 0;
        self.extra = ExtraPackets::None;
    }

    /// Checks the credit while the host has bytes for the guest. Returns whether to ask the guest
    /// for more.
    ///
    /// The guest is asked once when there is no credit left, and once when many packets are in
    /// flight: a kernel that counts only bytes sees no reason to report that it has taken them. An
    /// answer reveals nothing about empty messages, so none is requested if only those are in
    /// flight.
    pub(super) fn ask(&mut self, now: Tick, config: &Config) -> bool {
        // When bytes run out, the guest reports new credit by itself. When only packets run out, it
        // may never send anything on its own, so it is asked repeatedly, at growing intervals.
        let has_bytes = self.window.in_flight() > 0;
        if has_bytes && self.packets_free() == 0 && self.window.free() > 0 {
            if self.probe_at.is_none() {
                self.probe_at = Some(self.next_probe(now, config));
            }
        } else {
            self.probe_at = None;
        }
        let lack = if self.window.free() == 0 {
            Lack::Bytes
        } else if has_bytes && self.window.packets_scarce() {
            Lack::Packets
        } else {
            Lack::Nothing
        };
        // Each lack is asked for once, and `opened` starts again; a greater lack may be asked for
        // although a smaller one was.
        let ask = lack > self.asked;
        self.asked = self.asked.max(lack);
        ask
    }

    /// Returns whether it is time to ask again. If so, a stream may send one extra packet, and the
    /// next interval starts when that packet is sent; otherwise, it starts now.
    pub(super) fn probe(&mut self, now: Tick, config: &Config) -> bool {
        if self.probe_at.is_none_or(|at| now < at) {
            return false;
        }
        self.probes = self.probes.saturating_add(1).min(MAX_DOUBLINGS);
        let is_stream = self.socket_type == SocketType::Stream;
        self.extra = ExtraPackets::one_if(is_stream && self.window.extra_bytes() > 0);
        self.probe_at = match self.extra {
            ExtraPackets::None => Some(self.next_probe(now, config)),
            ExtraPackets::One => None,
        };
        true
    }

    fn next_probe(&self, now: Tick, config: &Config) -> Tick {
        let interval: Duration = config.probe_interval().saturating_mul(1 << self.probes);
        now.saturating_add(interval)
    }

    /// Returns when to ask again.
    pub(super) fn ask_at(&self) -> Option<Tick> {
        [self.probe_at, self.far_need.at()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Records that there will be nothing more to send.
    pub(super) const fn end(&mut self) {
        self.readable = false;
        self.probe_at = None;
        self.extra = ExtraPackets::None;
        self.message_sent = 0;
    }
}
