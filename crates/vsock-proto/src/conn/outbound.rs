// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use core::time::Duration;

use crate::credit::SendWindow;
use crate::{Config, Tick};

/// The way from the host to the guest: send window, and what to do when it is empty.
#[derive(Debug)]
pub(super) struct Outbound {
    pub(super) window: SendWindow,
    /// The host's stream was ready to be read, and has not yet refused.
    pub(super) readable: bool,
    /// The guest was asked for credit and has not yet given any.
    asked: bool,
    /// When to ask again.
    probe_at: Option<Tick>,
    /// How often it was asked in vain.
    probes: u32,
    /// Bytes sent of the message that has not yet ended, on a seqpacket socket.
    pub(super) message_sent: u32,
}

/// The time between two questions doubles at most so often.
const MAX_DOUBLINGS: u32 = 6;

impl Outbound {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            window: SendWindow::new(config.packet_overhead()),
            readable: false,
            asked: false,
            probe_at: None,
            probes: 0,
            message_sent: 0,
        }
    }

    /// Whether the guest has room for payload.
    pub(super) fn has_credit(&self) -> bool {
        self.window.free() > 0 && self.packets_free() > 0
    }

    /// Packets that may be sent now.
    ///
    /// Where nothing is under way but a part of one message, one always may: the guest empties its
    /// buffer when the message is whole, and would wait for the rest as we for it. Better to find out
    /// whether its buffer has room for one packet more than we think.
    pub(super) fn packets_free(&self) -> u32 {
        match self.window.packets_free() {
            0 => (self.message_sent > 0 && self.window.in_flight() <= self.message_sent).into(),
            free => free,
        }
    }

    /// The guest has given credit.
    pub(super) const fn opened(&mut self) {
        self.asked = false;
        self.probe_at = None;
        self.probes = 0;
    }

    /// Looks at the credit while the host has bytes for the guest; returns whether the guest shall
    /// be asked for more.
    ///
    /// It is asked once when there is none left, and once when the packets under way become many:
    /// a kernel that counts bytes alone sees no reason to tell us that it has emptied them.
    pub(super) fn ask(&mut self, now: Tick, config: &Config) -> bool {
        // Bytes come back by themselves. But while packets block, nothing else may ever make the
        // guest speak: so it is asked again and again, ever more rarely.
        let packets_block = self.packets_free() == 0 && self.window.free() > 0;
        if packets_block {
            self.probe_at
                .get_or_insert_with(|| now.saturating_add(config.probe_interval()));
        } else {
            self.probe_at = None;
        }
        let wanted = self.window.free() == 0 || self.window.packets_scarce();
        let ask = wanted && !self.asked;
        self.asked |= ask;
        ask
    }

    /// Whether it is time to ask once more; if so, sets the time of the next question.
    pub(super) fn probe(&mut self, now: Tick, config: &Config) -> bool {
        if self.probe_at.is_none_or(|at| now < at) {
            return false;
        }
        self.probes = self.probes.saturating_add(1).min(MAX_DOUBLINGS);
        let interval: Duration = config.probe_interval().saturating_mul(1 << self.probes);
        self.probe_at = Some(now.saturating_add(interval));
        true
    }

    /// When to ask once more.
    pub(super) const fn probe_at(&self) -> Option<Tick> {
        self.probe_at
    }

    /// There will be nothing more to send.
    pub(super) const fn end(&mut self) {
        self.readable = false;
        self.probe_at = None;
        self.message_sent = 0;
    }
}
