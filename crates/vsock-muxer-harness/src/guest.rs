// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A simulated guest: programs with sockets, and a kernel that sends and receives packets as the
//! vsock driver of Linux does.
//!
//! The guest uses nothing real and is fully deterministic: [`Guest::next_packet`] returns what the
//! driver puts into the transmit queue, [`Guest::rx_queue`] is its receive queue, and the time is
//! passed in. The [simulation](crate::sim) connects it to a muxer; it can also be driven by hand,
//! with any device that accepts a header and a payload.
//!
//! It behaves like Linux in the following ways, which a device must cope with:
//!
//! - It sends within the peer's credit, and never requests credit.
//! - It has no more bytes in flight than its own receive buffer holds
//!   ([`GuestConfig::caps_credit`]).
//! - It reports credit when less than a packet of 64 KiB is left of its window, when it has read
//!   everything or left less than its reader waits for, and whenever it has received a message.
//! - It returns the credit of a packet only when the packet has been read to its end.
//! - It merges a small packet of a stream into the previous one.
//! - It resets the connection if a packet exceeds its buffer, or the allowed overhead of packets.
//! - It closes with a SHUTDOWN, and waits eight seconds for the RST before it sends one itself.
//! - It answers a packet for which it has no socket with an RST, unless the packet is one.
//! - A connect fails if any packet other than a RESPONSE comes in answer.
//! - It accepts packets from the host and from other guests.
//! - It stops handling received packets while too many of its own replies wait.
//!
//! Linux never sends an empty message, and its newest versions also merge the packets of a stream
//! when there are too many. The simulation does neither by itself.

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

/// The first port that `connect` uses.
const FIRST_PORT: u32 = 49_152;

/// The identity of a socket of the guest's programs. It is never reused.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SocketId(u64);

/// Why a call of a guest program fails.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum GuestError {
    /// The socket does not exist: it was closed, or the guest has rebooted.
    #[error("the guest has no such socket")]
    NoSuchSocket,
    /// The socket is not connected, or this direction was shut down.
    #[error("the socket is not connected in this direction")]
    NotConnected,
    /// The message is longer than the peer's buffer.
    #[error("the message is longer than the peer's buffer")]
    MessageTooLong,
    /// Another program already listens on the port.
    #[error("port {0} already has a listener")]
    PortTaken(u32),
}

/// A packet in the driver's queue.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SentPacket {
    /// The header.
    pub header: Header,
    /// The payload. If the guest is honest, it has `header.len` bytes.
    pub payload: Vec<u8>,
    /// Whether it answers a received packet.
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
    /// The tuples of live connections, as the guest sees them.
    tuples: BTreeMap<ConnKey, SocketId>,
    listeners: BTreeMap<u32, Listener>,
    next_socket: u64,
    next_port: u32,
    tx: VecDeque<SentPacket>,
    replies: usize,
    rx_queue: GuestRxQueue,
    /// Whether the driver has stopped providing buffers.
    starving: bool,
}

impl Guest {
    /// Creates a guest that has booted: its buffers are provided, and no program listens.
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

    /// Reboots: no sockets, listeners or queued packets remain. The caller must reset the device as
    /// well.
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

    /// Handles a transport reset that the device has announced (virtio 1.3, 5.10.6.7): every
    /// connection ends, and listeners stay.
    pub fn on_transport_reset(&mut self) {
        for (_, id) in std::mem::take(&mut self.tuples) {
            if let Some(socket) = self.sockets.get_mut(&id) {
                socket.end(SocketState::Reset);
            }
        }
    }

    /// Makes a program listen on a port; `backlog` connections may wait to be accepted.
    ///
    /// # Errors
    ///
    /// [`GuestError::PortTaken`] if the port has a listener.
    pub fn listen(&mut self, port: u32, backlog: usize) -> Result<(), GuestError> {
        if self.listeners.contains_key(&port) {
            return Err(GuestError::PortTaken(port));
        }
        let waiting = VecDeque::new();
        self.listeners.insert(port, Listener { backlog, waiting });
        Ok(())
    }

    /// Accepts the next waiting connection.
    pub fn accept(&mut self, port: u32) -> Option<SocketId> {
        self.listeners.get_mut(&port)?.waiting.pop_front()
    }

    /// Returns the state of a socket, or `None` if it does not exist.
    #[must_use]
    pub fn state(&self, id: SocketId) -> Option<SocketState> {
        self.sockets.get(&id).map(|socket| socket.state)
    }

    /// Returns the ports of a socket, the guest's first.
    #[must_use]
    pub fn ports(&self, id: SocketId) -> Option<(u32, u32)> {
        let key = self.sockets.get(&id)?.key;
        Some((key.local.into(), key.peer.into()))
    }

    /// Returns the CID that a socket is connected to.
    #[must_use]
    pub fn peer_cid(&self, id: SocketId) -> Option<Cid> {
        Some(self.sockets.get(&id)?.key.host_cid)
    }

    /// Puts any header and payload into the transmit queue, as a hostile driver might.
    pub fn send_raw(&mut self, header: Header, payload: Vec<u8>) {
        self.queue(SentPacket {
            header,
            payload,
            reply: false,
        });
    }

    /// Stops the driver from providing buffers, until it is [fed](Self::feed).
    pub fn starve(&mut self) {
        self.starving = true;
    }

    /// Takes the next packet out of the transmit queue.
    pub fn next_packet(&mut self) -> Option<SentPacket> {
        let packet = self.tx.pop_front()?;
        self.replies -= usize::from(packet.reply);
        Some(packet)
    }

    /// Returns the number of packets in the transmit queue.
    #[must_use]
    pub fn tx_len(&self) -> usize {
        self.tx.len()
    }

    /// Returns the receive queue.
    pub fn rx_queue(&mut self) -> &mut GuestRxQueue {
        &mut self.rx_queue
    }

    /// Returns when [`on_timeout`](Self::on_timeout) must be called.
    #[must_use]
    pub fn deadline(&self) -> Option<Tick> {
        self.sockets.values().filter_map(|s| s.deadline).min()
    }

    /// Does the work that is due: gives up connects and closes without an answer.
    pub fn on_timeout(&mut self, now: Tick) {
        let due: Vec<SocketId> = self
            .sockets
            .iter()
            .filter(|(_, socket)| socket.deadline.is_some_and(|at| at <= now))
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            // A connect that is given up sends nothing to the peer; a close sends an RST.
            if self.state(id) == Some(SocketState::Closing) {
                self.reset(id);
                self.sockets.remove(&id);
            } else {
                self.forget(id, SocketState::Refused);
            }
        }
    }

    /// Returns the sockets of whose connections the kernel has a record.
    pub fn live(&self) -> impl Iterator<Item = SocketId> + '_ {
        self.tuples.values().copied()
    }

    /// Returns the configuration.
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

    /// Frees the tuple. The program can still query the socket.
    fn forget(&mut self, id: SocketId, state: SocketState) {
        if let Some(socket) = self.sockets.get_mut(&id) {
            socket.end(state);
            let key = socket.key;
            if self.tuples.get(&key) == Some(&id) {
                self.tuples.remove(&key);
            }
        }
    }

    /// Answers a peer that has closed both directions, once everything has been read.
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

    /// Answers a packet that belongs to no socket.
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
