// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How packets of the guest affect a connection.

use crate::conn::to_host::HostReader;
use crate::credit::CreditChange;
use crate::pending::Owed;
use crate::state::{Event, Phase, ToGuestEvent, ToHostEvent, ToHostState};
use crate::{
    Body, Confirmation, Connection, Ending, HostAction, MessageFlags, Packet, Payload,
    ShutdownFlags, SocketType, Tick, Violation, handshake,
};

impl Connection {
    /// Handles a packet that the guest sent for this connection, and its payload.
    ///
    /// The packet's credit takes effect first, whatever the operation.
    ///
    /// A REQUEST shows that the guest has no record of this connection. The connection is then
    /// [`Closed`](Phase::Closed) or [`Draining`](Phase::Draining), and the caller begins a new one
    /// with the same tuple.
    ///
    /// # Errors
    ///
    /// Returns how the guest violated the protocol. The connection resets itself, except after
    /// [`Violation::WrongType`]: the caller answers that packet with an RST of the same socket
    /// type, and the connection is unaffected.
    pub fn on_packet<P: Payload>(
        &mut self,
        now: Tick,
        packet: &Packet,
        payload: &mut P,
    ) -> Result<(), Violation> {
        if packet.socket_type != self.socket_type {
            return Err(Violation::WrongType);
        }
        self.take_credit(now, packet)
            .map_err(|violation| self.violated(now, violation))?;
        match packet.body {
            Body::Data(flags) => self
                .on_data(now, packet.len, flags, payload)
                .map_err(|violation| self.violated(now, violation))?,
            Body::CreditUpdate => {}
            Body::CreditRequest if self.phase.has_credit() => {
                self.pending.insert(Owed::CreditUpdate);
            }
            Body::CreditRequest => {}
            Body::Shutdown(flags) => self.on_shutdown(now, flags),
            Body::Response => self.on_response(now, packet),
            Body::Reset => self.on_reset(now),
            Body::Request => self.on_forgotten(now, Event::GuestRequest, Ending::Superseded),
        }
        self.review_credit(now);
        Ok(())
    }

    /// Applies the credit in a packet.
    fn take_credit(&mut self, now: Tick, packet: &Packet) -> Result<(), Violation> {
        // The credit fields of an RST have no meaning, and those of a REQUEST belong to the
        // connection that follows.
        let counts =
            self.phase.knows_window() && !matches!(packet.body, Body::Reset | Body::Request);
        if !counts {
            return Ok(());
        }
        let window = &mut self.to_guest.window;
        let change = match packet.body {
            Body::CreditUpdate => window.on_credit_update(packet.credit)?,
            _ => window.update(packet.credit)?,
        };
        if change == CreditChange::More {
            self.to_guest.opened();
        }
        self.check_message(now);
        Ok(())
    }

    /// Handles payload, whose meaning depends on how far either side has closed.
    fn on_data<P: Payload>(
        &mut self,
        now: Tick,
        len: u32,
        flags: MessageFlags,
        payload: &mut P,
    ) -> Result<(), Violation> {
        match (self.phase, self.to_host.state) {
            // The normal case: pass the payload on, and see whether the host still reads.
            (Phase::Connected, ToHostState::Open) => {
                let taken = self.unwinding(now, |conn| {
                    conn.to_host.take(len, flags, &conn.config, payload)
                });
                match taken? {
                    HostReader::Alive => {}
                    HostReader::Gone => self.on_host_stops_reading(now),
                    HostReader::TooSmall => self.on_message_too_long(now),
                }
                Ok(())
            }
            // The guest may not yet know that the host stopped reading. Credit what it sends;
            // otherwise it would block before it can end its sending.
            (Phase::Connected | Phase::Lingering, ToHostState::Discarding) => {
                self.to_host.discard_payload(len)
            }
            _ if self.is_nothing(len) => Ok(()),
            (Phase::Connected | Phase::Lingering, _) => Err(Violation::DataAfterEnd),
            // An RST is pending or was received: it answers this packet as well.
            (Phase::Finishing | Phase::Resetting | Phase::Draining | Phase::Closed, _) => Ok(()),
            _ => Err(Violation::DataTooEarly),
        }
    }

    /// Returns whether a payload of this length has no effect.
    ///
    /// An empty payload on a stream neither breaks the promise to send no more nor arrives too
    /// early if the guest initiated the connection; Linux accepts both. If the guest sends it
    /// instead of a RESPONSE, however, it has mistaken our REQUEST for another connection, and
    /// Linux refuses it as well.
    const fn is_nothing(&self, len: u32) -> bool {
        let instead_of_response = matches!(self.phase, Phase::Requesting | Phase::Requested);
        len == 0 && matches!(self.socket_type, SocketType::Stream) && !instead_of_response
    }

    /// Handles a RESPONSE, which establishes a host-initiated connection.
    fn on_response(&mut self, now: Tick, packet: &Packet) {
        if self.phase != Phase::Requested {
            return;
        }
        self.to_guest.window.start(packet.credit);
        self.advance(now, Event::GuestResponse);
        self.actions.insert(HostAction::Confirm);
        if self.confirmation == Confirmation::Line {
            let line = handshake::ok_line(self.key.local);
            // The backlog is empty and has room for this line in addition to the window.
            let queued = self.to_host.preamble(line.as_bytes());
            debug_assert!(queued.is_ok(), "no room for the confirmation");
        }
        self.catch_up(now);
    }

    /// Handles an RST.
    fn on_reset(&mut self, now: Tick) {
        let ending = match self.phase {
            Phase::Requested => Ending::GuestRefused,
            _ => Ending::GuestReset,
        };
        self.on_forgotten(now, Event::GuestReset, ending);
    }

    /// Handles a guest that has no record of the connection. Bytes that it sent before it ended its
    /// sending must arrive, so they are still written to the host.
    fn on_forgotten(&mut self, now: Tick, event: Event, ending: Ending) {
        if self.phase == Phase::Connected && self.to_host.state == ToHostState::Flushing {
            self.guest_stops_reading();
            self.advance(now, Event::GuestLeft);
        } else {
            self.end(now, event, ending);
        }
    }

    /// Handles a SHUTDOWN, whose flags add to those received before.
    fn on_shutdown(&mut self, now: Tick, flags: ShutdownFlags) {
        self.theirs = self.theirs | flags;
        match self.phase {
            Phase::Connected => self.apply_shutdown(now),
            // In any other phase, a complete shutdown closes the connection.
            _ if self.theirs.is_complete() => {
                self.end(now, Event::GuestClosed, Ending::GuestReset);
            }
            // While lingering, the host has closed both directions, so either flag completes the
            // disconnect.
            Phase::Lingering if !self.theirs.is_empty() => {
                self.end(now, Event::HalvesEnded, Ending::Clean);
            }
            // Before the connection is established, the flags are only remembered.
            _ => {}
        }
    }

    /// Applies what was reported before the connection was established.
    pub(super) fn catch_up(&mut self, now: Tick) {
        self.apply_shutdown(now);
        if self.hung_up && self.phase == Phase::Connected {
            self.on_host_hangup(now);
        }
    }

    /// Updates the states of both directions to match the flags that the guest has set so far.
    fn apply_shutdown(&mut self, now: Tick) {
        if self.theirs.contains(ShutdownFlags::RECEIVE) {
            self.guest_stops_reading();
        }
        if self.theirs.contains(ShutdownFlags::SEND) {
            if let Some(next) = self.to_host.state.next(ToHostEvent::GuestEndsSending) {
                self.to_host.state = next;
                self.to_host.end();
                self.after_flush();
            }
        }
        if !self.theirs.is_empty() {
            self.settle(now);
        }
    }

    /// Records that the guest receives no more. The host need not write any more.
    fn guest_stops_reading(&mut self) {
        if let Some(next) = self.to_guest.state.next(ToGuestEvent::GuestStopsReading) {
            self.to_guest.state = next;
            self.to_guest.end();
            self.actions.insert(HostAction::ShutdownRead);
        }
    }
}
