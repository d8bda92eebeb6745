// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the host's stream does to a connection.

use crate::conn::to_host::{Chunk, HostReader};
use crate::state::{Event, Outlook, Phase, ToGuestEvent, ToHostEvent, ToHostState};
use crate::{Confirmation, Connection, Ending, HostAction, Progress, ShutdownFlags, Tick};

impl Connection {
    /// How the client of a host-initiated connection is told.
    #[must_use]
    pub const fn confirmation(&self) -> Confirmation {
        self.confirmation
    }

    /// The stream for a guest-initiated connection is there: the guest is owed a RESPONSE.
    pub fn on_host_connected(&mut self, now: Tick) {
        self.advance(now, Event::HostConnected);
    }

    /// No stream can be had for a guest-initiated connection, or the client of a host-initiated one
    /// has left before the guest answered.
    pub fn on_host_refused(&mut self, now: Tick) {
        if self.phase != Phase::Connected {
            self.end(now, Event::HostGone, Ending::HostRefused);
        }
    }

    /// The stream may have bytes, or an end. Said in any phase, it is remembered until a read finds
    /// nothing.
    pub fn on_host_readable(&mut self, now: Tick) {
        if self.phase.has_stream() && self.phase != Phase::Draining {
            self.to_guest.readable = true;
            self.review_credit(now);
        }
    }

    /// The stream's other end is gone altogether. What it has sent is still read; nothing will
    /// be written to it any more. An attempt that the guest has not yet answered ends, unless
    /// [something was left](Self::on_host_hangup_with_data) for it.
    pub fn on_host_hangup(&mut self, now: Tick) {
        match self.phase {
            Phase::Requesting | Phase::Requested | Phase::Accepting => self.on_host_refused(now),
            Phase::Responding => {
                self.hung_up = true;
                self.to_guest.readable = true;
            }
            Phase::Connected => {
                self.on_host_stops_reading(now);
                self.on_host_readable(now);
            }
            Phase::Draining => self.end(now, Event::HostGone, Ending::Forfeited),
            _ => {}
        }
    }

    /// The stream's other end reads no more, and may go on sending: what waits for it is thrown
    /// away, and a guest that still sends shall know. Without this, the next write finds out.
    pub fn on_host_stopped_reading(&mut self, now: Tick) {
        if self.phase == Phase::Connected {
            self.on_host_stops_reading(now);
        }
    }

    /// As [`on_host_hangup`](Self::on_host_hangup), of a client that has left something for the
    /// guest: where the guest has not yet answered, the attempt goes on, for what was written
    /// arrives before its end.
    pub fn on_host_hangup_with_data(&mut self, now: Tick) {
        match self.phase {
            Phase::Requesting | Phase::Requested => {
                self.hung_up = true;
                self.to_guest.readable = true;
            }
            _ => self.on_host_hangup(now),
        }
    }

    /// Ends the connection because nothing that the guest knew counts any more: it was reset, or
    /// the device was. The guest is told nothing.
    pub fn abort(&mut self, now: Tick) {
        self.end(now, Event::Aborted, Ending::Aborted);
    }

    /// Ends the connection because the device is shutting down. A guest that knows of it is owed an
    /// RST, before which nothing else is sent; one that has not been given the REQUEST, or has left
    /// already, is told nothing.
    pub fn shut_down(&mut self, now: Tick) {
        self.end(now, Event::DeviceStops, Ending::Aborted);
    }

    /// Writes what waits for the host, by calling `write` until it is not `Done` or nothing waits.
    /// To be called when the stream is writable, and after [`HostAction::Confirm`].
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
        if self.phase == Phase::Draining {
            if self.to_host.state == ToHostState::Ended {
                self.end(now, Event::Drained, Ending::Clean);
            } else if written > 0 {
                self.deadline = Some(now.saturating_add(self.config.linger_timeout()));
            }
            return;
        }
        if written > 0
            && Outlook::of(self.to_guest.state, self.to_host.state) == Outlook::FlushInTime
        {
            self.deadline = Some(now.saturating_add(self.config.linger_timeout()));
        }
        self.settle(now);
        self.review_credit(now);
    }

    /// Once the last byte of a guest that has ended its sending is with the host: the end follows.
    pub(super) fn after_flush(&mut self) {
        if self.to_host.state == ToHostState::Flushing && !self.to_host.has_chunk() {
            if let Some(next) = self.to_host.state.next(ToHostEvent::Flushed) {
                self.to_host.state = next;
                self.actions.insert(HostAction::ShutdownWrite);
            }
        }
    }

    /// The host does not read any more. What waits for it is thrown away; a guest that still sends
    /// shall know.
    pub(super) fn on_host_stops_reading(&mut self, now: Tick) {
        let Some(next) = self.to_host.state.next(ToHostEvent::HostStopsReading) else {
            return;
        };
        if next == ToHostState::Ended {
            self.ending.get_or_insert(Ending::Forfeited);
        } else {
            self.declare(ShutdownFlags::RECEIVE);
        }
        self.to_host.state = next;
        self.to_host.discard();
        self.settle(now);
    }

    /// A message cannot pass, in either direction: nothing that comes after it may.
    pub(super) fn on_message_too_long(&mut self, now: Tick) {
        self.end(now, Event::HostGone, Ending::MessageTooLong);
    }

    /// A read has found the end of what the host sends.
    pub(super) fn on_host_end(&mut self, now: Tick) {
        self.to_guest.end();
        if let Some(next) = self.to_guest.state.next(ToGuestEvent::HostEndsSending) {
            self.to_guest.state = next;
            self.declare(ShutdownFlags::SEND);
            self.settle(now);
        }
    }
}
