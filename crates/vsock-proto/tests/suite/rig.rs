// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A connection with its environment: the guest, the host's stream, and the time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use vsock_proto::{
    Body, Chunk, Config, ConfigBuilder, Confirmation, ConnKey, Connection, Credit, HostAction,
    MessageFlags, Packet, Port, Progress, ShutdownFlags, SlicePayload, SocketType, Tick, Transmit,
    Violation,
};

pub(crate) const KEY: ConnKey = ConnKey::new(Port::new(1 << 30), Port::new(52));

/// The buffer of a typical guest.
pub(crate) const GUEST: Credit = room(64 * 1024);

/// The credit of a buffer out of which nothing was taken so far.
pub(crate) const fn room(buf_alloc: u32) -> Credit {
    credit(buf_alloc, 0)
}

pub(crate) const fn credit(buf_alloc: u32, fwd_cnt: u32) -> Credit {
    Credit { buf_alloc, fwd_cnt }
}

/// The host's stream, which the caller of a connection owns.
#[derive(Debug, Default)]
pub(crate) struct Host {
    /// Bytes that the host component has written and the guest has not yet received.
    pub(crate) sends: VecDeque<u8>,
    /// What follows when `sends` is empty.
    pub(crate) then: End,
    /// Bytes that the host component has received.
    pub(crate) got: Vec<u8>,
    /// Messages that it has received, on a seqpacket socket.
    pub(crate) messages: Vec<(Vec<u8>, MessageFlags)>,
    /// The longest message that it accepts.
    pub(crate) longest: Option<usize>,
    /// How many bytes it accepts before it blocks.
    pub(crate) space: usize,
    /// Whether writes fail.
    pub(crate) deaf: bool,
    /// How many times it was written to, and read from.
    pub(crate) writes: usize,
    pub(crate) reads: usize,
    /// Every action that the connection has requested, in order.
    pub(crate) actions: Vec<HostAction>,
}

/// The result of a read from an empty stream.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum End {
    #[default]
    NotYet,
    Ended,
    Broken,
}

impl Host {
    fn write(&mut self, bytes: &[u8], message: Option<MessageFlags>) -> Progress {
        self.writes += 1;
        if self.deaf {
            return Progress::Closed;
        }
        if let Some(flags) = message {
            if self.longest.is_some_and(|longest| bytes.len() > longest) {
                return Progress::TooLong;
            }
            if bytes.len() > self.space {
                return Progress::Pending;
            }
            self.space -= bytes.len();
            self.messages.push((bytes.to_vec(), flags));
            return Progress::Done(bytes.len());
        }
        assert!(
            !bytes.is_empty(),
            "a stream must never be offered an empty payload"
        );
        let taken = bytes.len().min(self.space);
        if taken == 0 {
            return Progress::Pending;
        }
        self.space -= taken;
        self.got.extend_from_slice(&bytes[..taken]);
        Progress::Done(taken)
    }

    fn write_chunk(&mut self, chunk: &Chunk<'_>) -> Progress {
        self.write(&[chunk.first, chunk.second].concat(), chunk.message)
    }

    fn read(&mut self, max: usize) -> Result<Vec<u8>, Progress> {
        self.reads += 1;
        assert!(max > 0, "a read into an empty buffer looks like the end");
        if self.sends.is_empty() {
            return Err(match self.then {
                End::NotYet => Progress::Pending,
                End::Ended => Progress::Closed,
                End::Broken => Progress::Failed,
            });
        }
        let len = max.min(self.sends.len());
        Ok(self.sends.drain(..len).collect())
    }

    pub(crate) fn did(&self, action: HostAction) -> bool {
        self.actions.contains(&action)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.did(HostAction::Close)
    }
}

#[derive(Debug)]
pub(crate) struct Rig {
    pub(crate) conn: Connection,
    pub(crate) host: Host,
    pub(crate) now: Tick,
    /// The guest's receive buffer, as its packets report it.
    pub(crate) guest: Credit,
    socket_type: SocketType,
}

impl Rig {
    /// A guest-initiated connection whose host stream is not yet available.
    pub(crate) fn accepting(config: Config) -> Self {
        Self::accepting_from(config, SocketType::Stream, GUEST)
    }

    /// The same with this buffer, which the REQUEST reports.
    pub(crate) fn accepting_from(config: Config, socket_type: SocketType, guest: Credit) -> Self {
        let mut request = packet(Body::Request, 0, guest);
        request.socket_type = socket_type;
        let conn = Connection::accept(&Arc::new(config), &request, Tick::ZERO);
        Self::new(conn, guest, socket_type)
    }

    /// A stream that a guest with this buffer has opened.
    pub(crate) fn connected_to(config: Config, guest: Credit) -> Self {
        Self::accepting_from(config, SocketType::Stream, guest).establish()
    }

    /// A host-initiated connection whose REQUEST is pending.
    pub(crate) fn requesting(config: Config, confirmation: Confirmation) -> Self {
        Self::requesting_as(config, confirmation, SocketType::Stream)
    }

    pub(crate) fn requesting_as(
        config: Config,
        confirmation: Confirmation,
        socket_type: SocketType,
    ) -> Self {
        let config = Arc::new(config);
        let conn = Connection::connect(&config, KEY, socket_type, confirmation, Tick::ZERO);
        Self::new(conn, GUEST, socket_type)
    }

    fn new(conn: Connection, guest: Credit, socket_type: SocketType) -> Self {
        let host = Host {
            space: usize::MAX,
            ..Host::default()
        };
        Self {
            conn,
            host,
            now: Tick::ZERO,
            guest,
            socket_type,
        }
    }

    /// A connection that the guest has opened, with nothing in flight.
    pub(crate) fn connected() -> Self {
        Self::connected_with(Config::default())
    }

    pub(crate) fn connected_with(config: Config) -> Self {
        Self::accepting(config).establish()
    }

    pub(crate) fn seqpacket(config: Config) -> Self {
        Self::accepting_from(config, SocketType::SeqPacket, GUEST).establish()
    }

    /// Lets the host accept and the guest receive the RESPONSE.
    pub(crate) fn establish(mut self) -> Self {
        self.conn.on_host_connected(self.now);
        assert_eq!(self.next(), Some(Body::Response));
        self
    }

    /// The guest sends a packet without payload.
    pub(crate) fn guest(&mut self, body: Body) {
        self.try_guest(body, &[]).expect("an honest packet");
    }

    /// The guest sends payload on a stream.
    pub(crate) fn data(&mut self, bytes: &[u8]) {
        self.try_guest(Body::Data(MessageFlags::NONE), bytes)
            .expect("an honest packet");
    }

    /// The guest sends a piece of a message.
    pub(crate) fn piece(&mut self, bytes: &[u8], flags: MessageFlags) {
        self.try_guest(Body::Data(flags), bytes)
            .expect("an honest packet");
    }

    pub(crate) fn try_guest(&mut self, body: Body, bytes: &[u8]) -> Result<(), Violation> {
        let len = u32::try_from(bytes.len()).unwrap();
        let mut packet = packet(body, len, self.guest);
        packet.socket_type = self.socket_type;
        let host = &mut self.host;
        let mut payload =
            SlicePayload::new(bytes, |bytes: &[u8], message| host.write(bytes, message));
        let result = self.conn.on_packet(self.now, &packet, &mut payload);
        self.act();
        result
    }

    /// The guest reads this many bytes, which the next packet reports.
    pub(crate) fn guest_reads(&mut self, bytes: u32) {
        self.guest.fwd_cnt = self.guest.fwd_cnt.wrapping_add(bytes);
        self.guest(Body::CreditUpdate);
    }

    /// The host component writes.
    pub(crate) fn host_sends(&mut self, bytes: &[u8]) {
        self.host.sends.extend(bytes);
        self.conn.on_host_readable(self.now);
        self.act();
    }

    /// The host component ends its sending, or breaks the stream.
    pub(crate) fn host_ends(&mut self, end: End) {
        self.host.then = end;
        self.conn.on_host_readable(self.now);
        self.act();
    }

    /// The host component closes: an end follows what it has sent, and it reads no more.
    pub(crate) fn host_closes(&mut self) {
        self.host.then = End::Ended;
        self.host.deaf = true;
        self.conn.on_host_hangup(self.now);
        self.act();
    }

    /// The host's stream has space again.
    pub(crate) fn host_takes(&mut self, bytes: usize) {
        self.host.space = self.host.space.saturating_add(bytes);
        self.flush();
    }

    pub(crate) fn flush(&mut self) {
        let host = &mut self.host;
        self.conn.flush(self.now, |chunk| host.write_chunk(chunk));
        self.act();
    }

    pub(crate) fn shut_down(&mut self) {
        self.conn.shut_down(self.now);
        self.act();
    }

    pub(crate) fn refuse(&mut self) {
        self.conn.on_host_refused(self.now);
        self.act();
    }

    pub(crate) fn pass(&mut self, duration: Duration) {
        self.now = self.now.saturating_add(duration);
        self.conn.on_timeout(self.now);
        self.act();
    }

    /// Advances to the next deadline.
    pub(crate) fn pass_until_deadline(&mut self) {
        let deadline = self.conn.deadline().expect("a deadline");
        self.pass(deadline.since(self.now));
    }

    /// Provides the guest's next buffer, with `room` bytes after the header.
    pub(crate) fn transmit(&mut self, room: usize) -> Option<(Packet, Vec<u8>)> {
        loop {
            let sent = match self.conn.poll_transmit(self.now, room)? {
                Transmit::Packet(packet) => Some((packet, Vec::new())),
                Transmit::Data(mut grant) => match self.host.read(room.min(grant.packet_bytes())) {
                    Ok(bytes) => Some((grant.sent(bytes.len()), bytes)),
                    Err(progress) => {
                        grant.finish(progress);
                        None
                    }
                },
            };
            self.act();
            if let Some((packet, bytes)) = sent {
                assert_eq!(packet.key, KEY);
                assert_eq!(packet.socket_type, self.socket_type);
                assert_eq!(packet.len as usize, bytes.len());
                return Some((packet, bytes));
            }
        }
    }

    /// Returns the body of the next packet, for a buffer of 4 KiB.
    pub(crate) fn next(&mut self) -> Option<Body> {
        self.transmit(4096 - 44).map(|(packet, _)| packet.body)
    }

    /// Returns every packet, for buffers of 4 KiB.
    pub(crate) fn drain(&mut self) -> Vec<Body> {
        std::iter::from_fn(|| self.next()).collect()
    }

    /// Returns all payload, for buffers of 4 KiB.
    pub(crate) fn drain_bytes(&mut self) -> Vec<u8> {
        std::iter::from_fn(|| self.transmit(4096 - 44))
            .flat_map(|(_, bytes)| bytes)
            .collect()
    }

    fn act(&mut self) {
        for action in self.conn.take_actions() {
            assert!(!self.host.is_closed(), "{action:?} on a closed stream");
            assert!(!self.host.did(action), "{action:?} twice");
            self.host.actions.push(action);
        }
    }
}

/// Returns bytes whose order can be checked.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + i / 251) as u8).collect()
}

pub(crate) fn packet(body: Body, len: u32, credit: Credit) -> Packet {
    Packet {
        key: KEY,
        socket_type: SocketType::Stream,
        body,
        len,
        credit,
    }
}

pub(crate) const SEND: Body = Body::Shutdown(ShutdownFlags::SEND);
pub(crate) const RECEIVE: Body = Body::Shutdown(ShutdownFlags::RECEIVE);
pub(crate) const BOTH: Body = Body::Shutdown(ShutdownFlags::BOTH);
pub(crate) const RW: Body = Body::Data(MessageFlags::NONE);

/// Limits that differ from the default.
pub(crate) fn limits(set: impl FnOnce(ConfigBuilder) -> ConfigBuilder) -> Config {
    set(Config::builder()).build().unwrap()
}

pub(crate) fn buf_alloc(bytes: u32) -> Config {
    limits(|limits| limits.buf_alloc(bytes))
}
