// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Connections that the guest's programs initiate.

use vsock_proto::{Body, Cid, ConnKey, Port, SocketType, Tick};

use super::{FIRST_PORT, Guest, SocketId, SocketState};

impl Guest {
    /// Connects to a port of the host without waiting. [`state`](Self::state) reports the result.
    pub fn connect(&mut self, now: Tick, port: u32) -> SocketId {
        let key = self.free_tuple(Cid::HOST, port);
        self.connect_as(now, key, SocketType::Stream, 0)
    }

    /// Connects to a port of another guest or of the host with a socket of this type, without
    /// waiting. [`state`](Self::state) reports the result.
    pub fn connect_to(
        &mut self,
        now: Tick,
        cid: Cid,
        socket_type: SocketType,
        port: u32,
    ) -> SocketId {
        let key = self.free_tuple(cid, port);
        self.connect_as(now, key, socket_type, 0)
    }

    fn free_tuple(&mut self, cid: Cid, port: u32) -> ConnKey {
        loop {
            let from = self.next_port;
            self.next_port = self.next_port.wrapping_add(1).max(FIRST_PORT);
            let key = key(from, port).with_host_cid(cid);
            if !self.tuples.contains_key(&key) {
                return key;
            }
        }
    }

    /// Connects like [`connect`](Self::connect), from this port of the guest. An existing
    /// connection with the same tuple is forgotten without notice, as by a guest that was restored.
    pub fn connect_from(&mut self, now: Tick, from: u32, port: u32) -> SocketId {
        self.connect_with(now, from, port, 0)
    }

    /// Connects like [`connect`](Self::connect), with a seqpacket socket.
    pub fn connect_seqpacket(&mut self, now: Tick, port: u32) -> SocketId {
        let key = self.free_tuple(Cid::HOST, port);
        self.connect_as(now, key, SocketType::SeqPacket, 0)
    }

    /// Connects like [`connect_from`](Self::connect_from), with a receive counter that starts at
    /// `fwd_cnt`, so that a test can make it wrap without transferring 4 GiB.
    pub fn connect_with(&mut self, now: Tick, from: u32, port: u32, fwd_cnt: u32) -> SocketId {
        self.connect_as(now, key(from, port), SocketType::Stream, fwd_cnt)
    }

    fn connect_as(
        &mut self,
        now: Tick,
        key: ConnKey,
        socket_type: SocketType,
        fwd_cnt: u32,
    ) -> SocketId {
        let id = self.add(key, socket_type, SocketState::Connecting);
        if let Some(socket) = self.sockets.get_mut(&id) {
            socket.start_at(fwd_cnt);
            socket.deadline = Some(now.saturating_add(self.config.connect_timeout));
        }
        self.say(id, Body::Request, Vec::new());
        id
    }
}

/// Returns the tuple of a connection from a port of the guest to a port of the host.
fn key(from: u32, port: u32) -> ConnKey {
    ConnKey::new(Port::new(from), Port::new(port))
}
