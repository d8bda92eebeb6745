// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The guest's kernel: handling of received packets.

use vsock_proto::{Body, Header, MessageFlags, Packet, SocketType};

use super::{Guest, SocketId, SocketState};

impl Guest {
    /// Handles the packets in the receive queue and provides the buffers again. Stops while too
    /// many replies wait to be sent. Returns the number of buffers.
    pub fn receive(&mut self) -> usize {
        let mut seen = 0;
        while self.replies < self.config.tx_packets {
            let Some(packet) = self.rx_queue.at(0) else {
                break;
            };
            let packet = packet.map(|(header, payload)| (*header, payload.to_vec()));
            if self.starving {
                self.rx_queue.drop_used(1);
            } else {
                self.rx_queue.repost(1);
            }
            seen += 1;
            if let Some((header, payload)) = packet {
                self.on_packet(&header, &payload);
            }
        }
        if !self.starving && seen > 0 {
            self.post_all();
        }
        seen
    }

    /// Provides buffers again after the driver has starved the device.
    pub fn feed(&mut self) {
        self.starving = false;
        self.post_all();
    }

    /// Handles a packet.
    fn on_packet(&mut self, header: &Header, payload: &[u8]) {
        // A packet with a wrong source or destination never reaches a socket.
        let Ok(packet) = self.route.parse(header) else {
            return;
        };
        let known = self.tuples.get(&packet.key).copied();
        match known {
            Some(id) if self.is_of_type(id, packet.socket_type) => {
                self.on_socket(id, &packet, payload);
            }
            None if packet.body == Body::Request => self.on_request(&packet),
            _ => self.refuse(&packet),
        }
    }

    fn is_of_type(&self, id: SocketId, socket_type: SocketType) -> bool {
        self.sockets
            .get(&id)
            .is_some_and(|socket| socket.socket_type == socket_type)
    }

    fn on_request(&mut self, packet: &Packet) {
        let port = u32::from(packet.key.local);
        let room = self
            .listeners
            .get(&port)
            .is_some_and(|listener| listener.waiting.len() < listener.backlog);
        if !room {
            self.refuse(packet);
            return;
        }
        let id = self.add(packet.key, packet.socket_type, SocketState::Connected);
        if let Some(socket) = self.sockets.get_mut(&id) {
            socket.begin(packet.credit);
        }
        if let Some(listener) = self.listeners.get_mut(&port) {
            listener.waiting.push_back(id);
        }
        self.say(id, Body::Response, Vec::new());
    }

    fn on_socket(&mut self, id: SocketId, packet: &Packet, payload: &[u8]) {
        let Some(socket) = self.sockets.get_mut(&id) else {
            return;
        };
        if socket.state == SocketState::Connecting {
            self.on_answer(id, packet);
            return;
        }
        socket.on_credit(packet.credit);
        self.send_pieces(id);
        let Some(socket) = self.sockets.get_mut(&id) else {
            return;
        };
        match packet.body {
            Body::Data(flags) => self.on_data(id, payload, flags),
            Body::CreditRequest => self.say(id, Body::CreditUpdate, Vec::new()),
            Body::Shutdown(flags) => {
                socket.theirs = socket.theirs | flags;
                if socket.state == SocketState::Closing && socket.theirs.is_complete() {
                    self.say(id, Body::Reset, Vec::new());
                    self.forget(id, SocketState::Ended);
                    self.sockets.remove(&id);
                } else {
                    self.settle(id);
                }
            }
            Body::Reset => {
                let closing = socket.state == SocketState::Closing;
                let ordered = socket.theirs.is_complete() || socket.ours.is_complete();
                let state = if ordered {
                    SocketState::Ended
                } else {
                    SocketState::Reset
                };
                self.forget(id, state);
                if closing {
                    self.sockets.remove(&id);
                }
            }
            Body::Request | Body::Response | Body::CreditUpdate => {}
        }
    }

    /// Handles a packet for a socket that is connecting.
    fn on_answer(&mut self, id: SocketId, packet: &Packet) {
        match packet.body {
            Body::Response => {
                if let Some(socket) = self.sockets.get_mut(&id) {
                    socket.begin(packet.credit);
                    socket.state = SocketState::Connected;
                    socket.deadline = None;
                }
            }
            Body::Reset => self.forget(id, SocketState::Refused),
            // `connect` fails with EPROTO.
            _ => self.reset(id),
        }
    }

    fn on_data(&mut self, id: SocketId, payload: &[u8], flags: MessageFlags) {
        let Some(socket) = self.sockets.get_mut(&id) else {
            return;
        };
        if socket.state == SocketState::Closing {
            return; // The program has closed the socket, so the kernel discards the data.
        }
        if !socket.enqueue(payload, flags) {
            socket.overrun = true;
            self.reset(id);
        }
    }
}
