// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use core::time::Duration;

use crate::conn::far_need::FarNeed;
use crate::credit::{ExtraPackets, SendWindow};
use crate::state::ToGuestState;
use crate::{Config, SocketType, Tick};

/// The way from the host to the guest: send window, and what to do when it is empty.
#[derive(Debug)]
pub(super) struct ToGuest {
    pub(super) state: ToGuestState,
    pub(super) window: SendWindow,
    /// The host's stream was ready to be read, and has not yet refused.
    pub(super) readable: bool,
    /// What the guest was asked for and has not yet given.
    asked: Lack,
    /// When to ask again.
    probe_at: Option<Tick>,
    /// How often it was asked without an answer that helps.
    probes: u32,
    /// The bytes of a stream may be put together.
    socket_type: SocketType,
    /// What may be sent all the same when packets have run out.
    extra: ExtraPackets,
    /// Bytes sent of the message that has not yet ended, on a seqpacket socket.
    pub(super) message_sent: u32,
    /// The buffer of the guest at the far end, by which that one may bound what it has under way.
    pub(super) far_window: Option<u32>,
    pub(super) far_need: FarNeed,
}

/// Why the guest is asked for credit, the more urgent the greater.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Lack {
    Nothing,
    /// Many are under way that it may have emptied.
    Packets,
    Bytes,
}

/// How often the time between two questions doubles at most.
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

    /// Whether the guest has room for payload.
    pub(super) fn has_credit(&self) -> bool {
        self.window.free() > 0 && self.packets_free() > 0
    }

    /// Packets that may be sent now.
    ///
    /// Where nothing is under way but a part of one message, one always may: the guest empties its
    /// buffer when the message is whole, and would wait for the rest as we for it. Better to find
    /// out whether its buffer has room for one packet more than we think. For the same reason a
    /// stream sends one from time to time: its reader may wait for more bytes before it takes any.
    pub(super) fn packets_free(&self) -> u32 {
        match self.window.packets_free() {
            0 if self.extra == ExtraPackets::One => (self.window.extra_bytes() > 0).into(),
            0 => (self.message_sent > 0 && self.window.in_flight() <= self.message_sent).into(),
            free => free,
        }
    }

    /// Bytes that may be sent now, in [that many packets](Self::packets_free).
    pub(super) fn bytes_free(&self) -> u32 {
        if self.is_extra() {
            self.window.extra_bytes()
        } else {
            self.window.free()
        }
    }

    /// Notes that a packet with `len` bytes of payload was sent. One that was sent all the same is
    /// the last for now, if it was not worth its place: so the host has time to write more.
    pub(super) fn on_sent(&mut self, len: u32) {
        if self.is_extra() {
            self.extra = self.window.on_sent_extra(len);
        } else {
            self.window.on_sent(len);
        }
    }

    fn is_extra(&self) -> bool {
        self.extra == ExtraPackets::One && self.window.packets_free() == 0
    }

    /// The guest has given credit.
    pub(super) const fn opened(&mut self) {
        self.asked = Lack::Nothing;
        self.probe_at = None;
        self.probes = 0;
        self.extra = ExtraPackets::None;
    }

    /// Looks at the credit while the host has bytes for the guest; returns whether the guest shall
    /// be asked for more.
    ///
    /// It is asked once when there is none left, and once when the packets under way become many:
    /// a kernel that counts bytes alone sees no reason to tell us that it has emptied them. Of
    /// empty messages, no answer says anything.
    pub(super) fn ask(&mut self, now: Tick, config: &Config) -> bool {
        // Bytes come back by themselves. But while packets block, nothing else may ever make the
        // guest speak: so it is asked again and again, ever more rarely.
        let tells = self.window.in_flight() > 0;
        if tells && self.packets_free() == 0 && self.window.free() > 0 {
            if self.probe_at.is_none() {
                self.probe_at = Some(self.next_probe(now, config));
            }
        } else {
            self.probe_at = None;
        }
        let lack = if self.window.free() == 0 {
            Lack::Bytes
        } else if tells && self.window.packets_scarce() {
            Lack::Packets
        } else {
            Lack::Nothing
        };
        let ask = lack > self.asked;
        self.asked = self.asked.max(lack);
        ask
    }

    /// Whether it is time to ask once more. If so, a stream may send one packet, and the time until
    /// the next begins with it; else it begins now.
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

    /// When to ask once more.
    pub(super) fn ask_at(&self) -> Option<Tick> {
        [self.probe_at, self.far_need.at()]
            .into_iter()
            .flatten()
            .min()
    }

    /// There will be nothing more to send.
    pub(super) const fn end(&mut self) {
        self.readable = false;
        self.probe_at = None;
        self.extra = ExtraPackets::None;
        self.message_sent = 0;
    }
}
