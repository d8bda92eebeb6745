// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A muxer with a backend, a guest and an event loop, all controlled by the test.

use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use vsock_backend_api::{ListenerId, VsockAddr, VsockBackend, VsockBackendType, VsockStream};
use vsock_driver::Temper;
use vsock_muxer::{
    Action, BackendId, Config, ConfigBuilder, Ending, GuestBuffers, GuestCid, Header, Interest,
    Muxer, Op, Readiness, SocketTypes, Tick, Token,
};

use crate::stream::Host;

pub(crate) const GUEST: u64 = 3;
const BACKEND_FD: RawFd = 1_000_000;

pub(crate) const READABLE: Readiness = ready(true, false, false);
pub(crate) const WRITABLE: Readiness = ready(false, true, false);
pub(crate) const HANGUP: Readiness = ready(true, true, true);

pub(crate) const fn ready(readable: bool, writable: bool, hangup: bool) -> Readiness {
    Readiness {
        readable,
        writable,
        hangup,
    }
}

/// The script of a backend.
#[derive(Debug, Default)]
pub(crate) struct Script {
    /// Waiting clients and failures.
    pub(crate) clients: VecDeque<Result<Host, ErrorKind>>,
    /// Whether it is busy, rather than refusing, when there is no answer.
    pub(crate) busy: bool,
    /// The answers to the guest's connections.
    pub(crate) answers: VecDeque<Result<Host, ErrorKind>>,
    /// The listener on every port; `None` if it is unknown.
    pub(crate) listener: Option<u64>,
    /// The listener after the next connect that returns a stream.
    pub(crate) next_listener: Option<u64>,
    /// The requested ports.
    pub(crate) asked: Vec<u32>,
    /// The addresses of each request, from and to.
    pub(crate) asked_from: Vec<(VsockAddr, VsockAddr)>,
    /// Whether it supports messages.
    pub(crate) seqpacket: bool,
    pub(crate) accepts: usize,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Scripted(pub(crate) Arc<Mutex<Script>>, RawFd);

impl Scripted {
    pub(crate) fn new(number: RawFd) -> Self {
        Self(Arc::default(), BACKEND_FD + number)
    }
}

impl AsRawFd for Scripted {
    fn as_raw_fd(&self) -> RawFd {
        self.1
    }
}

fn next(queue: &mut VecDeque<Result<Host, ErrorKind>>) -> Option<io::Result<Box<dyn VsockStream>>> {
    let next = queue.pop_front()?;
    Some(next.map(|host| host.stream()).map_err(io::Error::from))
}

impl VsockBackend for Scripted {
    fn accept(&mut self) -> io::Result<Box<dyn VsockStream>> {
        let mut script = self.0.lock().unwrap();
        script.accepts += 1;
        next(&mut script.clients).unwrap_or_else(|| Err(ErrorKind::WouldBlock.into()))
    }

    fn connect(&self, dst_port: u32) -> io::Result<Box<dyn VsockStream>> {
        let mut script = self.0.lock().unwrap();
        script.asked.push(dst_port);
        if matches!(script.answers.front(), Some(Ok(_))) && script.next_listener.is_some() {
            script.listener = script.next_listener.take();
        }
        let without = if script.busy {
            ErrorKind::WouldBlock
        } else {
            ErrorKind::ConnectionRefused
        };
        next(&mut script.answers).unwrap_or_else(|| Err(without.into()))
    }

    fn connect_from(&self, from: VsockAddr, to: VsockAddr) -> io::Result<Box<dyn VsockStream>> {
        self.0.lock().unwrap().asked_from.push((from, to));
        self.connect(to.port)
    }

    fn connect_seqpacket_from(
        &self,
        from: VsockAddr,
        to: VsockAddr,
    ) -> io::Result<Box<dyn VsockStream>> {
        self.0.lock().unwrap().asked_from.push((from, to));
        self.connect_seqpacket(to.port)
    }

    fn listener(&self, _dst_port: u32) -> Option<ListenerId> {
        let listener = self.0.lock().unwrap().listener?;
        Some(ListenerId::new([listener; 4]))
    }

    fn has_seqpacket(&self) -> bool {
        self.0.lock().unwrap().seqpacket
    }

    fn connect_seqpacket(&self, dst_port: u32) -> io::Result<Box<dyn VsockStream>> {
        self.connect(dst_port)
    }

    fn r#type(&self) -> VsockBackendType {
        VsockBackendType::Other("test")
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The guest's buffers, and the packets that arrived in them.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    pub(crate) rooms: VecDeque<usize>,
    pub(crate) packets: VecDeque<(Header, Vec<u8>)>,
}

impl GuestBuffers for Buffers {
    fn room(&mut self) -> Option<usize> {
        self.rooms.front().copied()
    }

    fn put_bytes(&mut self, header: &Header, payload: &[u8]) {
        let room = self.rooms.pop_front().expect("a buffer");
        assert!(payload.len() <= room);
        assert_eq!(header.len as usize, payload.len());
        self.packets.push_back((*header, payload.to_vec()));
    }
}

/// How a descriptor is registered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Watched {
    pub(crate) token: Token,
    pub(crate) interest: Interest,
}

pub(crate) struct World {
    pub(crate) muxer: Muxer,
    pub(crate) now: Tick,
    pub(crate) guest: Buffers,
    pub(crate) backend: Scripted,
    pub(crate) backend_id: BackendId,
    pub(crate) watched: HashMap<RawFd, Watched>,
    /// How many requests the event loop has received.
    pub(crate) changes: usize,
    next_fd: RawFd,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(Config::default())
    }

    pub(crate) fn with(config: Config) -> Self {
        let mut world = Self::asleep(config);
        world.activate(SocketTypes::ALL);
        world
    }

    /// An active muxer with limits that differ from the default.
    pub(crate) fn limited(set: impl FnOnce(ConfigBuilder) -> ConfigBuilder) -> Self {
        Self::with(set(Config::builder()).build().unwrap())
    }

    /// An active muxer without its backend.
    pub(crate) fn without_backends() -> Self {
        let mut world = Self::asleep(Config::default());
        drop(world.muxer.remove_backends(world.now));
        world.muxer.activate(world.now, SocketTypes::ALL);
        world
    }

    /// An active muxer with its backend only for siblings.
    pub(crate) fn of_siblings() -> Self {
        Self::of_siblings_with(Config::default())
    }

    pub(crate) fn of_siblings_with(config: Config) -> Self {
        let mut world = Self::asleep(config);
        drop(world.muxer.remove_backends(world.now));
        let backend = Box::new(world.backend.clone());
        world.backend_id = world.muxer.add_sibling_backend(backend).unwrap();
        world.activate(SocketTypes::ALL);
        world
    }

    /// An active muxer with a backend of this temper.
    pub(crate) fn with_temper(config: Config, temper: &Temper) -> Self {
        let mut world = Self::asleep(config);
        drop(world.muxer.remove_backends(world.now));
        let backend = temper.backend(Box::new(world.backend.clone()));
        world.backend_id = world.muxer.add_backend(backend).unwrap();
        world.activate(SocketTypes::ALL);
        world
    }

    /// An active muxer with a guest-initiated connection.
    pub(crate) fn connected() -> (Self, Host, Header) {
        let mut world = Self::new();
        let (host, request) = world.guest_connects(1, 52);
        (world, host, request)
    }

    pub(crate) fn activate(&mut self, types: SocketTypes) {
        self.muxer.activate(self.now, types);
        self.apply();
    }

    /// An inactive muxer.
    pub(crate) fn asleep(config: Config) -> Self {
        let mut muxer = Muxer::new(GuestCid::try_from(GUEST).unwrap(), config);
        let backend = Scripted::new(0);
        let backend_id = muxer.add_backend(Box::new(backend.clone())).unwrap();
        Self {
            muxer,
            now: Tick::ZERO,
            guest: Buffers::default(),
            backend,
            backend_id,
            watched: HashMap::new(),
            changes: 0,
            next_fd: 10,
        }
    }

    pub(crate) fn host(&mut self) -> Host {
        self.next_fd += 1;
        Host::new(self.next_fd)
    }

    /// Executes the muxer's actions, as an event loop does.
    pub(crate) fn apply(&mut self) {
        while let Some(action) = self.muxer.next_action() {
            self.changes += 1;
            match action {
                Action::Watch {
                    token,
                    fd,
                    interest,
                } => {
                    let watched = Watched { token, interest };
                    let before = self.watched.insert(fd, watched);
                    assert!(before.is_none_or(|before| before.token == token));
                    assert_ne!(
                        before,
                        Some(watched),
                        "the same watch must not be requested twice"
                    );
                }
                Action::Unwatch { fd, .. } => {
                    assert!(
                        self.watched.remove(&fd).is_some(),
                        "a descriptor must not be unregistered twice"
                    );
                }
                Action::Close { token, fds, .. } => {
                    for fd in fds.into_iter().flatten() {
                        assert_eq!(self.watched.remove(&fd).map(|w| w.token), Some(token));
                    }
                    assert!(self.watched.values().all(|watched| watched.token != token));
                }
            }
        }
    }

    pub(crate) fn watch_of(&self, host: &Host) -> Option<(bool, bool)> {
        self.watched
            .get(&host.fd)
            .map(|w| (w.interest.read, w.interest.write))
    }

    /// Reports an event of this descriptor.
    pub(crate) fn event(&mut self, fd: RawFd, ready: Readiness) {
        let token = self.watched[&fd].token;
        self.muxer.on_event(self.now, token, ready);
        self.apply();
    }

    /// Returns whether the backend is watched for clients.
    pub(crate) fn accepts(&self) -> bool {
        self.watched.contains_key(&BACKEND_FD)
    }

    pub(crate) fn backend_event(&mut self) {
        self.event(BACKEND_FD, READABLE);
    }

    /// Adds a client to the backend, whose first bytes have arrived.
    pub(crate) fn client(&mut self, first: &[u8]) -> Host {
        let host = self.host();
        host.sends(first);
        self.comes(&host);
        host
    }

    /// Adds a client, and reports it through the event loop.
    pub(crate) fn comes(&mut self, client: &Host) {
        self.queue_client(client);
        self.backend_event();
    }

    /// Returns the script of the backend.
    pub(crate) fn script(&self) -> MutexGuard<'_, Script> {
        self.backend.0.lock().unwrap()
    }

    /// Returns how many connections have ended in this way.
    pub(crate) fn ended(&self, ending: Ending) -> u64 {
        self.muxer.counters().endings.of(ending)
    }

    /// Returns the time until the muxer's deadline.
    pub(crate) fn due(&self) -> Duration {
        self.muxer.deadline().unwrap().since(self.now)
    }

    /// Receives one packet and answers it as the guest. Returns the packet's header.
    pub(crate) fn answers(&mut self, answer: Op) -> Header {
        let asked = self.receive(1)[0].0;
        self.guest_sends(&reply(&asked, answer), b"");
        asked
    }

    pub(crate) fn queue_client(&self, host: &Host) {
        self.script().clients.push_back(Ok(host.clone()));
    }

    pub(crate) fn answer(&self, answer: Result<&Host, ErrorKind>) {
        self.script().answers.push_back(answer.cloned());
    }

    /// Whether the backend is busy when there is no answer; else it refuses.
    pub(crate) fn is_busy(&self, busy: bool) {
        self.script().busy = busy;
    }

    pub(crate) fn guest_sends(&mut self, header: &Header, payload: &[u8]) {
        assert!(self.muxer.can_take_packet());
        let header = with(*header, |header| header.len = payload.len() as u32);
        let mut rest = payload;
        self.muxer.on_packet(self.now, &header, &mut rest);
        self.apply();
    }

    /// Sends as the host, and reports it through the event loop.
    pub(crate) fn host_sends(&mut self, host: &Host, bytes: &[u8]) {
        host.sends(bytes);
        self.event(host.fd, READABLE);
    }

    /// Provides this many buffers of 4 KiB, and returns the packets that arrived in them.
    pub(crate) fn receive(&mut self, buffers: usize) -> Vec<(Header, Vec<u8>)> {
        self.guest.rooms.extend(vec![4096; buffers]);
        self.transmit(usize::MAX);
        self.guest.rooms.clear();
        self.guest.packets.drain(..).collect()
    }

    pub(crate) fn transmit(&mut self, budget: usize) -> bool {
        let more = self.muxer.transmit(self.now, &mut self.guest, budget);
        self.apply();
        more
    }

    /// Returns only the operations of the packets: see [`receive`](Self::receive).
    pub(crate) fn ops(&mut self) -> Vec<Op> {
        let packets = self.receive(64);
        packets
            .iter()
            .map(|(header, _)| Op::try_from(header.op).unwrap())
            .collect()
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now = self.now.saturating_add(time);
        self.muxer.on_timeout(self.now);
        self.apply();
    }

    /// Creates a host-initiated connection to this port of the guest. Returns the header of its
    /// packets from the guest.
    pub(crate) fn host_connects(&mut self, port: u32) -> (Host, Header) {
        let host = self.client(format!("CONNECT {port}\n").as_bytes());
        let request = self.receive(1)[0].0;
        let response = reply(&request, Op::Response);
        self.guest_sends(&response, b"");
        assert!(String::from_utf8(host.got()).unwrap().starts_with("OK "));
        (host, response)
    }

    /// Creates a guest-initiated connection.
    pub(crate) fn guest_connects(&mut self, guest_port: u32, port: u32) -> (Host, Header) {
        let host = self.host();
        self.answer(Ok(&host));
        let request = header(Op::Request, guest_port, port);
        self.guest_sends(&request, b"");
        assert_eq!(self.ops(), [Op::Response]);
        (host, request)
    }
}

/// A packet of the guest, with a window of 64 KiB.
pub(crate) fn header(op: Op, guest_port: u32, host_port: u32) -> Header {
    Header {
        src_cid: GUEST,
        dst_cid: 2,
        src_port: guest_port,
        dst_port: host_port,
        len: 0,
        socket_type: 1,
        op: op.into(),
        flags: 0,
        buf_alloc: 64 * 1024,
        fwd_cnt: 0,
    }
}

/// The guest's answer to a packet.
pub(crate) fn reply(to: &Header, op: Op) -> Header {
    header(op, to.dst_port, to.src_port)
}

pub(crate) fn op(op: Op, of: &Header) -> Header {
    with(*of, |header| header.op = op.into())
}

pub(crate) fn shutdown(of: &Header, flags: u32) -> Header {
    with(op(Op::Shutdown, of), |header| header.flags = flags)
}

/// Returns the header with a change.
pub(crate) fn with(mut header: Header, change: impl FnOnce(&mut Header)) -> Header {
    change(&mut header);
    header
}

/// A packet with the same ports on a seqpacket socket.
pub(crate) fn seqpacket(header: Header) -> Header {
    with(header, |header| header.socket_type = 2)
}

pub(crate) fn bytes(packets: &[(Header, Vec<u8>)]) -> Vec<u8> {
    packets.iter().flat_map(|(_, data)| data.clone()).collect()
}
