// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A simulated guest: applications with sockets, above a kernel that speaks packets as the vsock
//! driver of Linux does.
//!
//! Nothing of it is real, and all of it is deterministic: [`Guest::next_packet`] is what the driver
//! puts into the transmit queue, [`Guest::rx_queue`] is its receive queue, and the time is passed
//! in. The [simulation](crate::sim) connects it to a muxer; it can also be driven by hand, with any
//! device that can be handed a header and a payload.
//!
//! What it does as Linux does, because a device has to get along with it:
//!
//! - It sends within the peer's credit, and never asks for credit.
//! - It has no more under way than its own receive buffer holds ([`GuestConfig::caps_credit`]).
//! - It tells of credit when less than a packet of 64 KiB is left of its window, or when it has
//!   read everything, or left less than its reader waits for; and whenever it has received a
//!   message.
//! - It adds a small packet of a stream to the one before.
//! - A packet beyond its buffer, or beyond what its packets may cost, resets the connection.
//! - It closes with a SHUTDOWN and waits eight seconds for the RST before it sends one itself.
//! - A packet that it has no socket for is answered by an RST, unless it is one.
//! - It takes packets from the host and from other guests.
//! - It stops looking at received packets while too many of its own replies wait.

mod calls;
mod config;
mod connect;
mod receive;
mod rx_queue;
mod socket;

use std::collections::{BTreeMap, VecDeque};

use thiserror::Error;
use vsock_proto::{Body, Cid, ConnKey, Credit, Header, Packet, Route, SocketType, Tick};

pub use config::GuestConfig;
pub use rx_queue::GuestRxQueue;
use socket::Socket;
pub use socket::{GuestRead, SocketState};

/// The first port that a connect uses.
const FIRST_PORT: u32 = 49_152;

/// A socket of the guest's applications. It is never the name of another one.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SocketId(u64);

/// Why a call of the guest's application fails.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum GuestError {
    /// There is no such socket: it was closed, or the guest has rebooted since.
    #[error("the guest has no such socket")]
    NoSuchSocket,
    /// It is not connected, or this direction has been shut down.
    #[error("the socket is not connected for this")]
    NotConnected,
    /// The peer's buffer cannot hold so long a message.
    #[error("the message is longer than the peer's buffer")]
    MessageTooLong,
    /// Another program listens there already.
    #[error("port {0} has a listener")]
    PortTaken(u32),
}

/// A packet in the driver's queue.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SentPacket {
    /// Its header.
    pub header: Header,
    /// Its payload. An honest guest's has `header.len` bytes.
    pub payload: Vec<u8>,
    /// Whether it answers one that was received.
    reply: bool,
}

#[derive(Debug)]
struct Listener {
    backlog: usize,
    waiting: VecDeque<SocketId>,
}

/// The guest. See the [module](self).
#[derive(Debug)]
pub struct Guest {
    config: GuestConfig,
    route: Route,
    sockets: BTreeMap<SocketId, Socket>,
    /// The live tuples, as the guest sees them.
    tuples: BTreeMap<ConnKey, SocketId>,
    listeners: BTreeMap<u32, Listener>,
    next_socket: u64,
    next_port: u32,
    tx: VecDeque<SentPacket>,
    replies: usize,
    rx_queue: GuestRxQueue,
    /// The driver does not post buffers again.
    starving: bool,
}

impl Guest {
    /// A guest that has booted: its buffers are posted, and no program listens.
    #[must_use]
    pub fn new(config: GuestConfig) -> Self {
        let route = Route::to_host(config.cid, config.types).to_guests_too();
        let mut guest = Self {
            config,
            route,
            sockets: BTreeMap::new(),
            tuples: BTreeMap::new(),
            listeners: BTreeMap::new(),
            next_socket: 0,
            next_port: FIRST_PORT,
            tx: VecDeque::new(),
            replies: 0,
            rx_queue: GuestRxQueue::default(),
            starving: false,
        };
        guest.post_all();
        guest
    }

    fn post_all(&mut self) {
        for _ in self.rx_queue.posted() + self.rx_queue.used()..self.config.rx_buffers {
            self.rx_queue.post(self.config.rx_buffer_bytes);
        }
    }

    /// Begins anew: no socket, no listener, no packet in any queue. The device is reset by the same
    /// reboot, which is not this method's to do.
    pub fn reboot(&mut self) {
        self.sockets.clear();
        self.tuples.clear();
        self.listeners.clear();
        self.tx.clear();
        self.replies = 0;
        self.rx_queue.clear();
        self.starving = false;
        self.next_port = FIRST_PORT;
        self.post_all();
    }

    /// The device has announced a transport reset (virtio 1.3, 5.10.6.7): every connection is over,
    /// listeners stay.
    pub fn on_transport_reset(&mut self) {
        for (_, id) in std::mem::take(&mut self.tuples) {
            if let Some(socket) = self.sockets.get_mut(&id) {
                socket.end(SocketState::Reset);
            }
        }
    }

    /// An application listens; `backlog` connections may wait to be accepted.
    ///
    /// # Errors
    ///
    /// [`GuestError::PortTaken`].
    pub fn listen(&mut self, port: u32, backlog: usize) -> Result<(), GuestError> {
        if self.listeners.contains_key(&port) {
            return Err(GuestError::PortTaken(port));
        }
        let waiting = VecDeque::new();
        self.listeners.insert(port, Listener { backlog, waiting });
        Ok(())
    }

    /// Takes the next connection that waits.
    pub fn accept(&mut self, port: u32) -> Option<SocketId> {
        self.listeners.get_mut(&port)?.waiting.pop_front()
    }

    /// What has become of a socket; `None` if there is none.
    #[must_use]
    pub fn state(&self, id: SocketId) -> Option<SocketState> {
        self.sockets.get(&id).map(|socket| socket.state)
    }

    /// The ports of a socket, the guest's first.
    #[must_use]
    pub fn ports(&self, id: SocketId) -> Option<(u32, u32)> {
        let key = self.sockets.get(&id)?.key;
        Some((key.local.into(), key.peer.into()))
    }

    /// The CID that a socket is connected to.
    #[must_use]
    pub fn peer_cid(&self, id: SocketId) -> Option<Cid> {
        Some(self.sockets.get(&id)?.key.host_cid)
    }

    /// Puts any header and payload into the transmit queue: what a hostile driver would do.
    pub fn send_raw(&mut self, header: Header, payload: Vec<u8>) {
        self.queue(SentPacket {
            header,
            payload,
            reply: false,
        });
    }

    /// From now on the driver posts no buffer again, until it is [fed](Self::feed).
    pub fn starve(&mut self) {
        self.starving = true;
    }

    /// The packet that is next in the transmit queue.
    pub fn next_packet(&mut self) -> Option<SentPacket> {
        let packet = self.tx.pop_front()?;
        self.replies -= usize::from(packet.reply);
        Some(packet)
    }

    /// Packets in the transmit queue.
    #[must_use]
    pub fn tx_len(&self) -> usize {
        self.tx.len()
    }

    /// The receive queue.
    pub fn rx_queue(&mut self) -> &mut GuestRxQueue {
        &mut self.rx_queue
    }

    /// When [`on_timeout`](Self::on_timeout) is to be called.
    #[must_use]
    pub fn deadline(&self) -> Option<Tick> {
        self.sockets.values().filter_map(|s| s.deadline).min()
    }

    /// Does what is due: connects and closes without an answer are given up.
    pub fn on_timeout(&mut self, now: Tick) {
        let due: Vec<SocketId> = self
            .sockets
            .iter()
            .filter(|(_, socket)| socket.deadline.is_some_and(|at| at <= now))
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            // A connect that is given up tells no peer; a close does.
            if self.state(id) == Some(SocketState::Closing) {
                self.reset(id);
                self.sockets.remove(&id);
            } else {
                self.forget(id, SocketState::Refused);
            }
        }
    }

    /// The sockets whose connections the kernel knows.
    pub fn live(&self) -> impl Iterator<Item = SocketId> + '_ {
        self.tuples.values().copied()
    }

    /// What the guest is like.
    #[must_use]
    pub const fn config(&self) -> &GuestConfig {
        &self.config
    }

    fn add(&mut self, key: ConnKey, socket_type: SocketType, state: SocketState) -> SocketId {
        let id = SocketId(self.next_socket);
        self.next_socket += 1;
        let socket = Socket::new(key, socket_type, state, &self.config);
        self.sockets.insert(id, socket);
        if let Some(before) = self.tuples.insert(key, id) {
            if let Some(socket) = self.sockets.get_mut(&before) {
                socket.end(SocketState::Reset);
            }
        }
        id
    }

    /// The tuple is free; the application may still look at the socket.
    fn forget(&mut self, id: SocketId, state: SocketState) {
        if let Some(socket) = self.sockets.get_mut(&id) {
            socket.end(state);
            let key = socket.key;
            if self.tuples.get(&key) == Some(&id) {
                self.tuples.remove(&key);
            }
        }
    }

    /// A peer that has closed altogether is answered once everything has been read.
    fn settle(&mut self, id: SocketId) {
        let Some(socket) = self.sockets.get(&id) else {
            return;
        };
        let done = socket.state == SocketState::Connected
            && socket.theirs.is_complete()
            && socket.queued() == 0;
        if done {
            self.say(id, Body::Reset, Vec::new());
            self.forget(id, SocketState::Ended);
        }
    }

    fn say(&mut self, id: SocketId, body: Body, payload: Vec<u8>) {
        let Some(socket) = self.sockets.get_mut(&id) else {
            return;
        };
        let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let packet = Packet {
            key: socket.key,
            socket_type: socket.socket_type,
            body,
            len,
            credit: socket.advertise(),
        };
        socket.on_sent(len);
        let reply = matches!(body, Body::Response | Body::Reset);
        self.queue(SentPacket {
            header: self.route.header(&packet),
            payload,
            reply,
        });
    }

    /// The answer to a packet that belongs to no socket.
    fn refuse(&mut self, packet: &Packet) {
        if packet.body == Body::Reset {
            return;
        }
        let answer = Packet {
            body: Body::Reset,
            len: 0,
            credit: Credit::default(),
            ..*packet
        };
        self.queue(SentPacket {
            header: self.route.header(&answer),
            payload: Vec::new(),
            reply: true,
        });
    }

    fn queue(&mut self, packet: SentPacket) {
        self.replies += usize::from(packet.reply);
        self.tx.push_back(packet);
    }
}
