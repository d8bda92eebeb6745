// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Host clients: from a backend's queue to a connection.

use std::io::ErrorKind;

use vsock_backend_api::{Received, VsockAddr, VsockMessages, VsockStream};
use vsock_proto::handshake::{CommandParser, MAX_LINE, Parse};
use vsock_proto::{Cid, Confirmation, ConnKey, Connection, GuestCid, Interest, Port, Tick};

use crate::action::CloseMode;
use crate::backoff::Backoff;
use crate::connection_info::Initiator;
use crate::entry::{ConnectionEntry, Entry, Handshake};
use crate::host_stream::HostStream;
use crate::muxer::{Life, Muxer};
use crate::ports::PortLease;
use crate::refusal::{ConnectionRefusal, RefusalReason};
use crate::slot::{Slot, SlotKey};
use crate::stream_calls::read;
use crate::token::{BackendId, Token};
use crate::unsent::Unsent;
use crate::waiting::Said;

/// How many clients are accepted from a backend in one turn.
const BATCH: usize = 32;

/// The result of reading a client's command.
enum Command {
    /// The command is incomplete.
    Unfinished,
    /// The command is complete.
    Given {
        port: Port,
        /// Bytes that were read after it.
        unsent: Option<Unsent>,
    },
    /// The client is refused, or has left.
    Refused(RefusalReason),
}

/// A client's request for a connection.
struct Request {
    port: Port,
    origin: Origin,
    confirmation: Confirmation,
    seen: Seen,
    unsent: Option<Unsent>,
}

impl Muxer {
    /// Handles an event of a backend: a client may be waiting.
    pub(super) fn on_backend_event(&mut self, now: Tick, id: BackendId) {
        let Some(backend) = self.backends.get_mut(id) else {
            return;
        };
        if backend.pause.is_some_and(|pause| now < pause.at()) {
            // The last `accept` failed. Stop watching until the pause is over; otherwise, a
            // level-triggered loop would spin.
            backend.watch(Interest::NONE, &mut self.actions);
            return;
        }
        self.accept(now, id);
    }

    /// Accepts a batch of clients. If more may be waiting, or if accepting fails, a timer continues
    /// the work, because an edge is not reported twice.
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
                    self.admit(now, id, stream);
                }
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => {}
                    ErrorKind::WouldBlock => {
                        backend.pause = None;
                        backend.watch(Interest::READ, &mut self.actions);
                        self.accept_timers.cancel(id.slot());
                        return;
                    }
                    // Only this client has left; others may be waiting.
                    ErrorKind::ConnectionAborted => self.counters.accept_failures += 1,
                    // Probably a lack of resources, which affects other clients as well.
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

    /// Admits a client's stream. If the stream names its port, the connection begins immediately;
    /// otherwise, a handshake begins.
    fn admit(&mut self, now: Tick, id: BackendId, mut stream: Box<dyn VsockStream>) {
        let requested = stream.requested_port();
        let peer = stream.peer().filter(|_| self.backends.is_for_siblings(id));
        let Some(key) = self.table.reserve() else {
            return;
        };
        let mut host = HostStream::unwatched(stream, Token::stream(key));
        if let Some(port) = requested {
            host.begin_watch(&mut self.actions);
            let request = Request {
                port: Port::new(port),
                origin: peer.map_or(Origin::Host, Origin::of),
                confirmation: Confirmation::OutOfBand,
                seen: Seen::BeforeWatch,
                unsent: None,
            };
            self.begin(now, key, host, request);
            return;
        }
        if self.config.max_handshakes() == 0 {
            self.note_refusal(ConnectionRefusal::of_client(
                RefusalReason::TooManyHandshakes,
                None,
            ));
            host.close(CloseMode::Abort, &mut self.actions);
            self.table.free(key.slot);
            return;
        }
        let mut handshake = Handshake {
            host,
            parser: CommandParser::new(),
            deadline: now.saturating_add(self.config.command_timeout()),
            waiting: None,
        };
        // Most clients have already sent their command and need not wait. Reading it before the
        // stream is watched saves the event loop a registration for refused clients.
        match handshake.read() {
            Command::Unfinished => {
                handshake.host.begin_watch(&mut self.actions);
                self.wait_for_command(key, handshake);
            }
            Command::Refused(reason) => {
                self.note_refusal(ConnectionRefusal::of_client(reason, None));
                handshake.host.close(CloseMode::Abort, &mut self.actions);
                self.table.free(key.slot);
            }
            Command::Given { port, unsent } => {
                handshake.host.begin_watch(&mut self.actions);
                let request = Request::by_line(port, Seen::BeforeWatch, unsent);
                self.begin(now, key, handshake.host, request);
            }
        }
    }

    /// Keeps a client until it has sent its command. The client may later have to make room for
    /// others.
    fn wait_for_command(&mut self, key: SlotKey, mut handshake: Handshake) {
        if let Some(slot) = self.waiting.first_to_go(self.config.max_handshakes()) {
            self.note_refusal(ConnectionRefusal::of_client(
                RefusalReason::TooManyHandshakes,
                None,
            ));
            self.end_handshake(slot);
        }
        handshake.waiting = Some(self.waiting.add(key.slot, handshake.said()));
        self.timers.set(key.slot, handshake.deadline);
        self.table.put(key, Entry::Handshake(Box::new(handshake)));
    }

    /// Handles an event of a client without a connection: it may have sent its command.
    pub(super) fn on_command(&mut self, now: Tick, key: SlotKey) {
        let Some(handshake) = self.table.handshake(key.slot) else {
            return;
        };
        match handshake.read() {
            Command::Unfinished if handshake.said() == Said::Part => {
                handshake.waiting = handshake.waiting.map(|id| self.waiting.speaks(id));
            }
            Command::Unfinished => {}
            Command::Refused(reason) => {
                self.note_refusal(ConnectionRefusal::of_client(reason, None));
                self.end_handshake(key.slot);
            }
            Command::Given { port, unsent } => {
                if let Some(handshake) = self.take_handshake(key.slot) {
                    let request = Request::by_line(port, Seen::ByEvent, unsent);
                    self.begin(now, key, handshake.host, request);
                }
            }
        }
    }

    /// Begins the connection that a client requests, in the slot reserved for it.
    fn begin(&mut self, now: Tick, key: SlotKey, mut host: HostStream, request: Request) {
        self.counters.host_initiated += 1;
        let socket_type = host.socket_type();
        let peer = request.port;
        self.ask_before_refusal(now, request.origin.key(peer));
        let reason = if peer == Port::ANY || !self.types.contains(socket_type) {
            RefusalReason::CommandMalformed
        } else if self.is_full_for(request.origin) {
            RefusalReason::TooManyConnections
        } else if let Some((ports, lease)) = self.tuple(request.origin, peer) {
            let confirmation = request.confirmation;
            let mut conn = Connection::connect(&self.config, ports, socket_type, confirmation, now);
            // The bytes that came after the command are sent as if they had just been read.
            if request.seen == Seen::ByEvent || request.unsent.is_some() {
                host.assume_readable();
                conn.on_host_readable(now);
            }
            let birth = self.births.next(now);
            let mut entry = ConnectionEntry::new(Initiator::Host, birth, conn, Some(host));
            entry.lease = lease;
            entry.unsent = request.unsent;
            self.table.put(key, Entry::Connection(Box::new(entry)));
            self.review(now, key.slot);
            return;
        } else {
            RefusalReason::NoHostPort
        };
        self.note_refusal(match request.origin.key(peer) {
            Some(key) => ConnectionRefusal::of_connection(reason, Initiator::Host, key),
            None => ConnectionRefusal::of_client(reason, Some(peer)),
        });
        host.close(CloseMode::Abort, &mut self.actions);
        self.table.free(key.slot);
    }

    /// Returns whether the limit of connections is reached. Siblings may initiate at most half of
    /// them, so that they cannot prevent host components from reaching the guest.
    fn is_full_for(&self, origin: Origin) -> bool {
        let limit = self.config.max_connections();
        match origin {
            Origin::Guest(..) if self.table.begun_by_guests() >= limit.div_ceil(2) => true,
            _ => self.table.connections() >= limit,
        }
    }

    /// Returns the tuple for a connection to this port of the guest, if one is free.
    fn tuple(&mut self, origin: Origin, peer: Port) -> Option<(ConnKey, Option<PortLease>)> {
        // A pending RST for a previous connection with the same tuple would reset the new one.
        let taken = |ports| self.table.contains(ports) || self.rxq.owes_reset(ports);
        match origin {
            Origin::Host => {
                let in_use = |local| taken(ConnKey::new(local, peer));
                let lease = self.ports.lease(in_use).ok()?;
                Some((ConnKey::new(lease.port(), peer), Some(lease)))
            }
            // An old connection with this tuple may still have bytes that must arrive.
            Origin::Guest(cid, _) => {
                let ports = origin.key(peer).filter(|ports| !taken(*ports))?;
                (cid != self.guest).then_some((ports, None))
            }
            Origin::Nowhere => None,
        }
    }

    /// Closes the stream of a client without a connection.
    pub(super) fn end_handshake(&mut self, slot: Slot) {
        if let Some(handshake) = self.take_handshake(slot) {
            handshake.host.close(CloseMode::Abort, &mut self.actions);
            self.table.free(slot);
        }
    }

    /// Takes a client out of its slot, which the caller must free or fill.
    fn take_handshake(&mut self, slot: Slot) -> Option<Box<Handshake>> {
        let Some(Entry::Handshake(handshake)) = self.table.take(slot) else {
            return None;
        };
        self.timers.cancel(slot);
        if let Some(id) = handshake.waiting {
            self.waiting.remove(id);
        }
        Some(handshake)
    }
}

/// The origin of a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Origin {
    /// The host, from a port that the muxer assigns.
    Host,
    /// This port of a sibling.
    Guest(GuestCid, Port),
    /// An invalid address.
    Nowhere,
}

impl Origin {
    fn of(from: VsockAddr) -> Self {
        let port = Port::new(from.port);
        match GuestCid::try_from(from.cid) {
            _ if from.cid == u64::from(Cid::HOST) => Self::Host,
            Ok(cid) if port != Port::ANY => Self::Guest(cid, port),
            _ => Self::Nowhere,
        }
    }

    /// Returns the key of a connection from a sibling to this port.
    fn key(self, peer: Port) -> Option<ConnKey> {
        match self {
            Self::Guest(cid, port) => Some(ConnKey::new(port, peer).with_host_cid(cid.cid())),
            Self::Host | Self::Nowhere => None,
        }
    }
}

/// How the muxer learned what a client requests.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Seen {
    /// Before the event loop watches the stream. Registration reports any further bytes.
    BeforeWatch,
    /// Through an event. No other event reports bytes that followed the command.
    ByEvent,
}

impl Request {
    /// Creates the request of a command, which is confirmed with a line of text.
    const fn by_line(port: Port, seen: Seen, unsent: Option<Unsent>) -> Self {
        Self {
            port,
            origin: Origin::Host,
            confirmation: Confirmation::Line,
            seen,
            unsent,
        }
    }
}

impl Handshake {
    /// Returns whether the client has sent a part of its command. A stream of messages sends the
    /// whole command or nothing.
    const fn said(&self) -> Said {
        if self.parser.room() < MAX_LINE {
            Said::Part
        } else {
            Said::Nothing
        }
    }

    /// Reads until the command is complete or nothing is left. Never reads more bytes than a line
    /// can still have; bytes after the line are kept.
    fn read(&mut self) -> Command {
        let mut buffer = [0; MAX_LINE];
        if let Some(messages) = self.host.stream().messages() {
            return read_message(messages, &mut buffer);
        }
        loop {
            let room = self.parser.room().clamp(1, MAX_LINE);
            let piece = buffer.get_mut(..room).unwrap_or_default();
            let len = match read(self.host.stream(), piece) {
                Ok(len @ 1..) if len <= piece.len() => len,
                Err(ErrorKind::WouldBlock) => return Command::Unfinished,
                // The end, a failure, or a count of more bytes than were asked for.
                Ok(_) | Err(_) => return Command::Refused(RefusalReason::CommandAbandoned),
            };
            let piece = piece.get(..len).unwrap_or_default();
            match self.parser.feed(piece) {
                Ok(Parse::NeedMore) => {}
                Ok(Parse::Line { port, used }) => {
                    let unsent = Unsent::bytes(piece.get(used..).unwrap_or_default());
                    return Command::Given { port, unsent };
                }
                Err(_) => return Command::Refused(RefusalReason::CommandMalformed),
            }
        }
    }
}

/// Reads a command that is sent as one message.
fn read_message(messages: &mut dyn VsockMessages, buffer: &mut [u8]) -> Command {
    let received = loop {
        match messages.receive_message(buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            received => break received,
        }
    };
    match received {
        Ok(Received::Message { len, .. }) => {
            let line = buffer.get(..len).unwrap_or_default();
            match CommandParser::new().feed(line) {
                Ok(Parse::Line { port, used }) if used == len => {
                    let unsent = None;
                    Command::Given { port, unsent }
                }
                _ => Command::Refused(RefusalReason::CommandMalformed),
            }
        }
        Ok(Received::TooLong) => Command::Refused(RefusalReason::CommandMalformed),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Command::Unfinished,
        Ok(Received::End) | Err(_) => Command::Refused(RefusalReason::CommandAbandoned),
    }
}
