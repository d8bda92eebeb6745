// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How events of the host's stream affect a connection.

use crate::conn::to_host::{Chunk, HostReader};
use crate::state::{Event, Outlook, Phase, ToGuestEvent, ToHostEvent, ToHostState};
use crate::{Confirmation, Connection, Ending, HostAction, Progress, ShutdownFlags, Tick};

impl Connection {
    /// Returns how the client of a host-initiated connection learns that the guest has accepted.
    #[must_use]
    pub const fn confirmation(&self) -> Confirmation {
        self.confirmation
    }

    /// Reports that the stream of a guest-initiated connection is available: a RESPONSE becomes
    /// pending for the guest.
    pub fn on_host_connected(&mut self, now: Tick) {
        self.advance(now, Event::HostConnected);
    }

    /// Reports that no stream is available for a guest-initiated connection, or that the client of
    /// a host-initiated one left before the guest answered.
    pub fn on_host_refused(&mut self, now: Tick) {
        if self.phase != Phase::Connected {
            self.end(now, Event::HostGone, Ending::HostRefused);
        }
    }

    /// Reports that the stream may have bytes or has ended. May be called in any phase; the
    /// connection remembers it until a read finds nothing.
    pub fn on_host_readable(&mut self, now: Tick) {
        if self.phase.has_stream() && self.phase != Phase::Draining {
            self.to_guest.readable = true;
            self.review_credit(now);
        }
    }

    /// Reports that the stream's peer has gone completely.
    ///
    /// What it has sent is still read, but nothing more is written to it. An attempt that the guest
    /// has not yet answered ends, unless the peer [left data](Self::on_host_hangup_with_data).
    pub fn on_host_hangup(&mut self, now: Tick) {
        match self.phase {
            Phase::Requesting | Phase::Requested | Phase::Accepting => self.on_host_refused(now),
            Phase::Responding => {
                // The RESPONSE comes first. `catch_up` repeats the hang-up once it is sent.
                self.hung_up = true;
                self.to_guest.readable = true;
            }
            Phase::Connected => {
                self.on_host_stops_reading(now);
                // Bytes that the peer left are still to be read, and so is the end that follows
                // them.
                self.on_host_readable(now);
            }
            Phase::Draining => self.end(now, Event::HostGone, Ending::Forfeited),
            _ => {}
        }
    }

    /// Reports that the stream's peer reads no more, although it may still send: bytes that wait
    /// for it are discarded, and a guest that still sends is told.
    ///
    /// Without this call, the next write discovers it.
    pub fn on_host_stopped_reading(&mut self, now: Tick) {
        if self.phase == Phase::Connected {
            self.on_host_stops_reading(now);
        }
    }

    /// Reports a hang-up, as [`on_host_hangup`](Self::on_host_hangup) does, of a client that has
    /// left data for the guest.
    ///
    /// If the guest has not yet answered, the attempt continues, because bytes that were written
    /// must arrive before the end.
    pub fn on_host_hangup_with_data(&mut self, now: Tick) {
        match self.phase {
            Phase::Requesting | Phase::Requested => {
                self.hung_up = true;
                self.to_guest.readable = true;
            }
            _ => self.on_host_hangup(now),
        }
    }

    /// Ends the connection without telling the guest, because the guest's record of it is void: the
    /// guest or the device was reset.
    pub fn abort(&mut self, now: Tick) {
        self.end(now, Event::Aborted, Ending::Aborted);
    }

    /// Ends the connection because the device is shutting down.
    ///
    /// If the guest has a record of the connection, an RST becomes pending and nothing else is sent
    /// before it. A guest that has not received the REQUEST, or has already left, is told nothing.
    pub fn shut_down(&mut self, now: Tick) {
        self.end(now, Event::DeviceStops, Ending::Aborted);
    }

    /// Writes waiting bytes to the host, by calling `write` until it returns something other than
    /// `Done` or nothing waits.
    ///
    /// Must be called when the stream is writable, and after [`HostAction::Confirm`].
    pub fn flush(&mut self, now: Tick, write: impl FnMut(&Chunk<'_>) -> Progress) {
        if !self.phase.has_stream() {
            return;
        }
        let (written, reader) = self.unwinding(now, |conn| conn.to_host.flush(write));
        match reader {
            HostReader::Alive => {}
            HostReader::Gone if self.phase == Phase::Draining => {
                return self.end(now, Event::HostGone, Ending::Forfeited);
            }
            HostReader::Gone => return self.on_host_stops_reading(now),
            HostReader::TooSmall => return self.on_message_too_long(now),
        }
        self.after_flush();
        // While draining, only progress extends the deadline: a host that reads slowly loses
        // nothing, and one that has stopped cannot hold the memory.
        if self.phase == Phase::Draining {
            if self.to_host.state == ToHostState::Ended {
                self.end(now, Event::Drained, Ending::Clean);
            } else if written > 0 {
                self.deadline = Some(now.saturating_add(self.config.linger_timeout()));
            }
            return;
        }
        // The same holds while the guest waits for its RST.
        if written > 0
            && Outlook::of(self.to_guest.state, self.to_host.state) == Outlook::FlushInTime
        {
            self.deadline = Some(now.saturating_add(self.config.linger_timeout()));
        }
        self.settle(now);
        self.review_credit(now);
    }

    /// Ends the stream towards the host if the guest has ended its sending and its last byte was
    /// written.
    pub(super) fn after_flush(&mut self) {
        if self.to_host.state == ToHostState::Flushing && !self.to_host.has_chunk() {
            if let Some(next) = self.to_host.state.next(ToHostEvent::Flushed) {
                self.to_host.state = next;
                self.actions.insert(HostAction::ShutdownWrite);
            }
        }
    }

    /// Handles a host that reads no more. Waiting bytes are discarded, and a guest that still sends
    /// is told.
    pub(super) fn on_host_stops_reading(&mut self, now: Tick) {
        let Some(next) = self.to_host.state.next(ToHostEvent::HostStopsReading) else {
            return;
        };
        // If the guest had already ended its sending, only the discarded bytes are lost. Otherwise,
        // it must learn that it need not send any more.
        if next == ToHostState::Ended {
            self.ending.get_or_insert(Ending::Forfeited);
        } else {
            self.declare(ShutdownFlags::RECEIVE);
        }
        self.to_host.state = next;
        self.to_host.discard();
        self.settle(now);
    }

    /// Ends the connection because a message cannot pass, in either direction: nothing may overtake
    /// it.
    pub(super) fn on_message_too_long(&mut self, now: Tick) {
        self.end(now, Event::HostGone, Ending::MessageTooLong);
    }

    /// Handles the end of the host's bytes, which a read has found.
    pub(super) fn on_host_end(&mut self, now: Tick) {
        self.to_guest.end();
        if let Some(next) = self.to_guest.state.next(ToGuestEvent::HostEndsSending) {
            self.to_guest.state = next;
            self.declare(ShutdownFlags::SEND);
            self.settle(now);
        }
    }
}
