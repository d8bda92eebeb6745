// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Host clients: from a backend's queue to a connection.

use std::io::{self, ErrorKind};

use vsock_backend_api::{Received, VsockMessages, VsockStream};
use vsock_proto::hybrid::{CommandParser, MAX_LINE, Parse};
use vsock_proto::{ConnKey, Connection, Greeting, Port, Slot, Tick};

use crate::action::Last;
use crate::backoff::Backoff;
use crate::early::Early;
use crate::entry::{Entry, Handshake, Open};
use crate::link::Link;
use crate::muxer::Life;
use crate::token::Place;
use crate::{BackendId, Counters, Muxer};

/// Clients that are accepted from a backend before somebody else has his turn.
const BATCH: usize = 32;

/// What a client's command has come to.
enum Command {
    /// It is not whole yet.
    Unfinished,
    /// It is whole.
    Given { port: Port, early: Early },
    /// The client is refused, or has left.
    Refused,
}

impl Muxer {
    /// A client may wait at the backend.
    pub(super) fn on_backend_event(&mut self, now: Tick, id: BackendId) {
        let Some(backend) = self.backends.get_mut(id) else {
            return;
        };
        if backend.pause.is_some_and(|pause| now < pause.at()) {
            // Nothing can be done about it before the pause is over.
            backend.watch(false, &mut self.actions);
            return;
        }
        self.accept(now, id);
    }

    /// Accepts a batch of clients. Where there may be more, or accepting fails, time goes on with it:
    /// an edge is not reported twice.
    pub(super) fn accept(&mut self, now: Tick, id: BackendId) {
        if self.life != Life::Active {
            return;
        }
        for _ in 0..BATCH {
            let Some(backend) = self.backends.get_mut(id) else {
                return;
            };
            match backend.backend.accept() {
                Ok(stream) => {
                    backend.pause = None;
                    self.admit(now, stream);
                }
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => {}
                    ErrorKind::WouldBlock => {
                        backend.pause = None;
                        backend.watch(true, &mut self.actions);
                        self.accept_timers.cancel(id.slot());
                        return;
                    }
                    // This one client has left.
                    ErrorKind::ConnectionAborted => self.counters.accept_failures += 1,
                    _ => {
                        self.counters.accept_failures += 1;
                        let pause = Backoff::after(backend.pause, now);
                        backend.pause = Some(pause);
                        self.accept_timers.set(id.slot(), pause.at());
                        return;
                    }
                },
            }
        }
        self.accept_timers.set(id.slot(), now);
    }

    /// Takes in a client's stream: a connection at once, where it names its port, else a handshake.
    fn admit(&mut self, now: Tick, mut stream: Box<dyn VsockStream>) {
        let requested = stream.requested_port();
        let Some(place) = self.table.reserve() else {
            return;
        };
        let mut link = Link::unwatched(stream, place.token());
        if let Some(port) = requested {
            link.begin_watch(&mut self.actions);
            self.begin(
                now,
                place,
                link,
                Port::new(port),
                (Greeting::Silent, Seen::BeforeWatch),
                Early::NONE,
            );
            return;
        }
        if self.config.max_handshakes() == 0 {
            self.counters.handshakes_at_limit += 1;
            link.close(Last::Abort, &mut self.actions);
            self.table.free(place.slot);
            return;
        }
        let mut handshake = Handshake {
            link,
            parser: CommandParser::new(),
            deadline: now.saturating_add(self.config.command_timeout()),
            turn: None,
        };
        // Most clients have sent it already, and need no place.
        match handshake.read(&mut self.counters) {
            Command::Unfinished => {
                handshake.link.begin_watch(&mut self.actions);
                self.wait_for_command(place, handshake);
            }
            Command::Refused => {
                handshake.link.close(Last::Abort, &mut self.actions);
                self.table.free(place.slot);
            }
            Command::Given { port, early } => {
                handshake.link.begin_watch(&mut self.actions);
                let seen = (Greeting::Line, Seen::BeforeWatch);
                self.begin(now, place, handshake.link, port, seen, early);
            }
        }
    }

    /// A client waits until it has sent its command, where it may have to make room for the next.
    fn wait_for_command(&mut self, place: Place, mut handshake: Handshake) {
        if let Some(slot) = self.waiting.first_to_go(self.config.max_handshakes()) {
            self.counters.handshakes_at_limit += 1;
            self.end_handshake(slot);
        }
        handshake.turn = Some(self.waiting.add(place.slot, handshake.has_begun()));
        self.timers.set(place.slot, handshake.deadline);
        self.table.put(place, Entry::Handshake(Box::new(handshake)));
    }

    /// A client that has no connection yet may have sent its command.
    pub(super) fn on_command(&mut self, now: Tick, place: Place) {
        let Some(handshake) = self.table.handshake(place.slot) else {
            return;
        };
        match handshake.read(&mut self.counters) {
            Command::Unfinished if handshake.has_begun() => {
                handshake.turn = handshake.turn.map(|turn| self.waiting.speaks(turn));
            }
            Command::Unfinished => {}
            Command::Refused => self.end_handshake(place.slot),
            Command::Given { port, early } => {
                if let Some(handshake) = self.take_handshake(place.slot) {
                    let seen = (Greeting::Line, Seen::ByEvent);
                    self.begin(now, place, handshake.link, port, seen, early);
                }
            }
        }
    }

    /// Begins the connection that a client wants, in a place that is reserved for it.
    fn begin(
        &mut self,
        now: Tick,
        place: Place,
        mut link: Link,
        port: Port,
        (greeting, seen): (Greeting, Seen),
        early: Early,
    ) {
        self.counters.host_initiated += 1;
        let socket_type = link.socket_type();
        if port == Port::ANY || !self.types.contains(socket_type) {
            self.counters.handshakes_malformed += 1;
        } else if self.table.connections() >= self.config.max_connections() {
            self.counters.refused_at_limit += 1;
        } else if let Ok(lease) = self.ports.lease(|local| {
            // An RST to what had this tuple before would kill what has it now.
            let key = ConnKey::new(local, port);
            self.table.contains(key) || self.rxq.owes_reset(key)
        }) {
            let key = ConnKey::new(lease.port(), port);
            let mut conn = Connection::connect(&self.config, key, socket_type, greeting, now);
            // What came behind the command is sent as if it were read.
            if seen == Seen::ByEvent || !early.is_empty() {
                link.assume_readable();
                conn.on_host_readable(now);
            }
            let mut open = Open::new(conn, Some(link));
            open.lease = Some(lease);
            open.early = early;
            self.table.put(place, Entry::Open(Box::new(open)));
            self.review(now, place.slot);
            return;
        } else {
            self.counters.refused_without_port += 1;
        }
        link.close(Last::Abort, &mut self.actions);
        self.table.free(place.slot);
    }

    /// Closes the stream of a client that has no connection.
    pub(super) fn end_handshake(&mut self, slot: Slot) {
        if let Some(handshake) = self.take_handshake(slot) {
            handshake.link.close(Last::Abort, &mut self.actions);
            self.table.free(slot);
        }
    }

    /// Takes a client out of its place, which is still to be freed or filled.
    fn take_handshake(&mut self, slot: Slot) -> Option<Box<Handshake>> {
        let Some(Entry::Handshake(handshake)) = self.table.take(slot) else {
            return None;
        };
        self.timers.cancel(slot);
        if let Some(turn) = handshake.turn {
            self.waiting.remove(turn);
        }
        Some(handshake)
    }
}

/// How it was seen what a client wants.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Seen {
    /// Before the driver watches the stream: what it has beside, it shows when it is registered.
    BeforeWatch,
    /// By an event, behind which there may be more that no other event tells of.
    ByEvent,
}

impl Handshake {
    /// Whether the client has said anything. Who keeps messages apart says it all or nothing.
    const fn has_begun(&self) -> bool {
        self.parser.room() < MAX_LINE
    }

    /// Reads until the command is whole or nothing is left. Never more than a line can still have:
    /// what is read beyond it is kept.
    fn read(&mut self, counters: &mut Counters) -> Command {
        let mut buffer = [0; MAX_LINE];
        if let Some(messages) = self.link.stream().messages() {
            return read_message(messages, &mut buffer, counters);
        }
        loop {
            let room = self.parser.room().clamp(1, MAX_LINE);
            let piece = buffer.get_mut(..room).unwrap_or_default();
            let len = match read(self.link.stream(), piece) {
                Ok(len @ 1..) if len <= piece.len() => len,
                Err(ErrorKind::WouldBlock) => return Command::Unfinished,
                // The end, a failure, or a count of bytes that nothing offered a place.
                Ok(_) | Err(_) => {
                    counters.handshakes_abandoned += 1;
                    return Command::Refused;
                }
            };
            let piece = piece.get(..len).unwrap_or_default();
            match self.parser.feed(piece) {
                Ok(Parse::NeedMore) => {}
                Ok(Parse::Line { port, used }) => {
                    let early = Early::new(piece.get(used..).unwrap_or_default());
                    return Command::Given { port, early };
                }
                Err(_) => {
                    counters.handshakes_malformed += 1;
                    return Command::Refused;
                }
            }
        }
    }
}

/// Reads a command that is a message, all of it.
fn read_message(
    messages: &mut dyn VsockMessages,
    buffer: &mut [u8],
    counters: &mut Counters,
) -> Command {
    let received = loop {
        match messages.receive_message(buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            received => break received,
        }
    };
    match received {
        Ok(Received::Message { len, .. }) => {
            let line = buffer.get(..len).unwrap_or_default();
            if let Ok(Parse::Line { port, used }) = CommandParser::new().feed(line)
                && used == len
            {
                let early = Early::NONE;
                return Command::Given { port, early };
            }
            counters.handshakes_malformed += 1;
        }
        Ok(Received::TooLong) => counters.handshakes_malformed += 1,
        Err(error) if error.kind() == ErrorKind::WouldBlock => return Command::Unfinished,
        Ok(Received::End) | Err(_) => counters.handshakes_abandoned += 1,
    }
    Command::Refused
}

/// Reads; a call that was interrupted is repeated.
pub(super) fn read(stream: &mut dyn VsockStream, buffer: &mut [u8]) -> Result<usize, ErrorKind> {
    loop {
        match stream.read(buffer).map_err(|error: io::Error| error.kind()) {
            Err(ErrorKind::Interrupted) => {}
            result => return result,
        }
    }
}
