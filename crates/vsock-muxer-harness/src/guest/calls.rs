// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the guest's applications do with a connected socket.

use vsock_proto::{Body, MessageFlags, ShutdownFlags, Tick};

use super::socket::{MAX_PACKET, Socket};
use super::{Guest, GuestError, GuestRead, SocketId, SocketState};

impl Guest {
    /// Sends as much of `bytes` as there is credit for; returns how much.
    ///
    /// # Errors
    ///
    /// [`GuestError::NotConnected`] also after a shutdown of this direction, by either side.
    pub fn write(&mut self, id: SocketId, bytes: &[u8]) -> Result<usize, GuestError> {
        let socket = self.sockets.get_mut(&id).ok_or(GuestError::NoSuchSocket)?;
        if !socket.is_writable() {
            return Err(GuestError::NotConnected);
        }
        let len = bytes.len().min(socket.tx_room());
        for piece in bytes[..len].chunks(MAX_PACKET as usize) {
            self.say(id, Body::Data(MessageFlags::NONE), piece.to_vec());
        }
        Ok(len)
    }

    /// Sends a message, as far as there is credit for it; the kernel sends the rest when there is.
    /// Its last packet has the flags `end`. Returns whether it was taken: while another one is
    /// being sent, a call would wait.
    ///
    /// # Errors
    ///
    /// [`GuestError::MessageTooLong`] if the peer could not hold it, and as [`write`](Self::write).
    pub fn send(
        &mut self,
        id: SocketId,
        message: &[u8],
        end: MessageFlags,
    ) -> Result<bool, GuestError> {
        let socket = self.sockets.get_mut(&id).ok_or(GuestError::NoSuchSocket)?;
        if !socket.is_writable() {
            return Err(GuestError::NotConnected);
        }
        if message.len() > socket.tx_window() as usize {
            return Err(GuestError::MessageTooLong);
        }
        if socket.unsent.is_some() {
            return Ok(false);
        }
        socket.unsent = Some((message.iter().copied().collect(), end));
        self.send_pieces(id);
        Ok(true)
    }

    /// Sends what there is credit for of a message that is being sent.
    pub(super) fn send_pieces(&mut self, id: SocketId) {
        while let Some(socket) = self.sockets.get_mut(&id) {
            if !socket.is_writable() {
                socket.unsent = None;
            }
            let Some((piece, flags)) = socket.next_piece() else {
                return;
            };
            self.say(id, Body::Data(flags), piece);
        }
    }

    /// Whether a message is being sent, of which the peer does not have the end.
    #[must_use]
    pub fn is_sending(&self, id: SocketId) -> bool {
        self.sockets.get(&id).is_some_and(|s| s.unsent.is_some())
    }

    /// Whether the kernel has reset the connection because more came than it could hold.
    #[must_use]
    pub fn overran(&self, id: SocketId) -> bool {
        self.sockets.get(&id).is_some_and(|s| s.overrun)
    }

    /// Receives a message, if one is whole, and the flags of its end. As Linux does, the kernel
    /// then tells of its credit, whatever that is.
    pub fn receive_message(&mut self, id: SocketId) -> Option<(Vec<u8>, MessageFlags)> {
        let socket = self.sockets.get_mut(&id)?;
        let (message, flags) = socket.dequeue_message()?;
        if socket.state == SocketState::Connected {
            self.say(id, Body::CreditUpdate, Vec::new());
        }
        self.settle(id);
        Some((message, flags))
    }

    /// Bytes that a write would send now.
    #[must_use]
    pub fn tx_room(&self, id: SocketId) -> usize {
        self.sockets.get(&id).map_or(0, Socket::tx_room)
    }

    /// Whether the socket's own buffer lets it send at all: one of no bytes does not, where it caps
    /// credit.
    #[must_use]
    pub fn may_send(&self, id: SocketId) -> bool {
        self.sockets.get(&id).is_some_and(Socket::may_send)
    }

    /// Reads at most this many bytes.
    ///
    /// # Errors
    ///
    /// [`GuestError::NotConnected`] if the connection never was, or was reset and has been read
    /// empty.
    pub fn read(&mut self, id: SocketId, most: usize) -> Result<GuestRead, GuestError> {
        let socket = self.sockets.get_mut(&id).ok_or(GuestError::NoSuchSocket)?;
        if socket.queued() > 0 {
            let (bytes, update) = socket.dequeue(most);
            if update && socket.state == SocketState::Connected {
                self.say(id, Body::CreditUpdate, Vec::new());
            }
            self.settle(id);
            return Ok(GuestRead::Bytes(bytes));
        }
        match socket.state {
            SocketState::Refused | SocketState::Reset => Err(GuestError::NotConnected),
            SocketState::Ended => Ok(GuestRead::End),
            _ if socket.theirs.contains(ShutdownFlags::SEND) => Ok(GuestRead::End),
            _ => Ok(GuestRead::Nothing),
        }
    }

    /// `MSG_PEEK`: at most this many bytes, which stay where they are.
    #[must_use]
    pub fn peek(&self, id: SocketId, most: usize) -> Vec<u8> {
        self.sockets
            .get(&id)
            .map(|socket| socket.peek(most))
            .unwrap_or_default()
    }

    /// `SO_RCVLOWAT`: how many bytes have to be there before a reader is woken.
    pub fn set_lowat(&mut self, id: SocketId, bytes: usize) {
        let Some(socket) = self.sockets.get_mut(&id) else {
            return;
        };
        if socket.set_lowat(bytes) && socket.state == SocketState::Connected {
            self.say(id, Body::CreditUpdate, Vec::new());
        }
    }

    /// Whether a reader would be woken: there are as many bytes as it waits for, a message, or an
    /// end.
    #[must_use]
    pub fn is_readable(&self, id: SocketId) -> bool {
        self.sockets.get(&id).is_some_and(Socket::is_readable)
    }

    /// Bytes that can be read, or messages.
    #[must_use]
    pub fn queued(&self, id: SocketId) -> usize {
        self.sockets.get(&id).map_or(0, Socket::queued)
    }

    /// Bytes, and packets, that the kernel would still take in for the socket.
    #[must_use]
    pub fn rx_room(&self, id: SocketId) -> (usize, usize) {
        self.sockets.get(&id).map_or((0, 0), Socket::rx_room)
    }

    /// Bytes that were read and that the peer has not been told of.
    #[must_use]
    pub fn unseen(&self, id: SocketId) -> u32 {
        self.sockets.get(&id).map_or(0, Socket::unseen)
    }

    /// Shuts a direction down, or both.
    ///
    /// # Errors
    ///
    /// [`GuestError::NotConnected`].
    pub fn shutdown(&mut self, id: SocketId, flags: ShutdownFlags) -> Result<(), GuestError> {
        let socket = self.sockets.get_mut(&id).ok_or(GuestError::NoSuchSocket)?;
        if socket.state != SocketState::Connected {
            return Err(GuestError::NotConnected);
        }
        if flags.contains(ShutdownFlags::SEND) {
            socket.unsent = None;
        }
        socket.ours = socket.ours | flags;
        let ours = socket.ours;
        self.say(id, Body::Shutdown(ours), Vec::new());
        Ok(())
    }

    /// The application closes the socket: what it has not read is lost. The kernel goes on until
    /// the peer's RST, and then forgets it.
    pub fn close(&mut self, now: Tick, id: SocketId) {
        let Some(socket) = self.sockets.get_mut(&id) else {
            return;
        };
        match socket.state {
            // A program that closed while connecting no longer waits for an answer.
            SocketState::Connecting => self.reset(id),
            SocketState::Connected if socket.theirs.is_complete() => self.reset(id),
            SocketState::Connected => {
                let told = socket.ours.is_complete();
                socket.ours = ShutdownFlags::BOTH;
                socket.unsent = None;
                socket.state = SocketState::Closing;
                socket.deadline = Some(now.saturating_add(self.config.close_timeout));
                if !told {
                    self.say(id, Body::Shutdown(ShutdownFlags::BOTH), Vec::new());
                }
                return;
            }
            SocketState::Closing => return,
            SocketState::Ended | SocketState::Refused | SocketState::Reset => {}
        }
        self.sockets.remove(&id);
    }

    /// The connection is reset by this side, as by a close with `SO_LINGER` of zero.
    pub fn reset(&mut self, id: SocketId) {
        if self.sockets.get(&id).is_some_and(|s| s.state.is_live()) {
            self.say(id, Body::Reset, Vec::new());
            self.forget(id, SocketState::Reset);
        }
    }

    /// `SO_VM_SOCKETS_BUFFER_SIZE`: the receive buffer gets another size, and the peer is told.
    pub fn set_buffer(&mut self, id: SocketId, bytes: u32) {
        let Some(socket) = self.sockets.get_mut(&id) else {
            return;
        };
        socket.resize(bytes);
        if socket.state == SocketState::Connected {
            self.say(id, Body::CreditUpdate, Vec::new());
        }
    }

    /// Asks the peer for a credit update, which Linux never does.
    pub fn request_credit(&mut self, id: SocketId) {
        self.say(id, Body::CreditRequest, Vec::new());
    }

    /// Buffers that the device may fill.
    #[must_use]
    pub fn posted(&self) -> usize {
        self.rx_queue.posted()
    }
}
