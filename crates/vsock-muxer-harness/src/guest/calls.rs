// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Calls of the guest's programs on connected sockets.

use vsock_proto::{Body, MessageFlags, ShutdownFlags, Tick};

use super::socket::{MAX_PACKET, Socket};
use super::{Guest, GuestError, GuestRead, SocketId, SocketState};

impl Guest {
    /// Sends as many of `bytes` as the credit allows. Returns how many were sent.
    ///
    /// # Errors
    ///
    /// [`GuestError::NotConnected`], also after either side has shut down this direction.
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

    /// Sends a message as far as the credit allows; the kernel sends the rest later.
    ///
    /// The last packet has the flags `end`. Returns whether the message was accepted: while another
    /// one is being sent, a call would block.
    ///
    /// # Errors
    ///
    /// [`GuestError::MessageTooLong`] if the peer cannot hold the message, and the errors of
    /// [`write`](Self::write).
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

    /// Sends as much of the current message as the credit allows.
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

    /// Returns whether a message is being sent and its end is still to be sent.
    #[must_use]
    pub fn is_sending(&self, id: SocketId) -> bool {
        self.sockets.get(&id).is_some_and(|s| s.unsent.is_some())
    }

    /// Returns whether the kernel has reset the connection because it received more than it could
    /// hold.
    #[must_use]
    pub fn overran(&self, id: SocketId) -> bool {
        self.sockets.get(&id).is_some_and(|s| s.overrun)
    }

    /// Receives a complete message, if there is one, and the flags of its end. As in Linux, the
    /// kernel then reports its credit in any case.
    pub fn receive_message(&mut self, id: SocketId) -> Option<(Vec<u8>, MessageFlags)> {
        let socket = self.sockets.get_mut(&id)?;
        let (message, flags) = socket.dequeue_message()?;
        if socket.state == SocketState::Connected {
            self.say(id, Body::CreditUpdate, Vec::new());
        }
        self.settle(id);
        Some((message, flags))
    }

    /// Returns how many bytes a write would send now.
    #[must_use]
    pub fn tx_room(&self, id: SocketId) -> usize {
        self.sockets.get(&id).map_or(0, Socket::tx_room)
    }

    /// Returns whether the socket's own buffer allows it to send at all: an empty buffer does not,
    /// if it limits the bytes in flight.
    #[must_use]
    pub fn may_send(&self, id: SocketId) -> bool {
        self.sockets.get(&id).is_some_and(Socket::may_send)
    }

    /// Reads at most `most` bytes.
    ///
    /// # Errors
    ///
    /// [`GuestError::NotConnected`] if the connection was never established, or was reset and has
    /// no more bytes.
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

    /// Returns at most `most` bytes without removing them, like `MSG_PEEK`.
    #[must_use]
    pub fn peek(&self, id: SocketId, most: usize) -> Vec<u8> {
        self.sockets
            .get(&id)
            .map(|socket| socket.peek(most))
            .unwrap_or_default()
    }

    /// Sets how many bytes must be available before a reader is woken, like `SO_RCVLOWAT`.
    pub fn set_lowat(&mut self, id: SocketId, bytes: usize) {
        let Some(socket) = self.sockets.get_mut(&id) else {
            return;
        };
        if socket.set_lowat(bytes) && socket.state == SocketState::Connected {
            self.say(id, Body::CreditUpdate, Vec::new());
        }
    }

    /// Returns whether a reader would be woken: as many bytes as it waits for are available, or a
    /// message, or the end.
    #[must_use]
    pub fn is_readable(&self, id: SocketId) -> bool {
        self.sockets.get(&id).is_some_and(Socket::is_readable)
    }

    /// Returns the number of bytes or messages that can be read.
    #[must_use]
    pub fn queued(&self, id: SocketId) -> usize {
        self.sockets.get(&id).map_or(0, Socket::queued)
    }

    /// Returns how many bytes and packets the kernel would still accept for the socket.
    #[must_use]
    pub fn rx_room(&self, id: SocketId) -> (usize, usize) {
        self.sockets.get(&id).map_or((0, 0), Socket::rx_room)
    }

    /// Returns how many bytes were read but not yet reported to the peer.
    #[must_use]
    pub fn unseen(&self, id: SocketId) -> u32 {
        self.sockets.get(&id).map_or(0, Socket::unseen)
    }

    /// Shuts down one or both directions.
    ///
    /// # Errors
    ///
    /// [`GuestError::NotConnected`] if the socket is not connected.
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

    /// Closes the socket; unread data is lost. The kernel keeps the connection until the peer's
    /// RST.
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

    /// Resets the connection, like a close with `SO_LINGER` set to zero.
    pub fn reset(&mut self, id: SocketId) {
        if self.sockets.get(&id).is_some_and(|s| s.state.is_live()) {
            self.say(id, Body::Reset, Vec::new());
            self.forget(id, SocketState::Reset);
        }
    }

    /// Resizes the receive buffer, like `SO_VM_SOCKETS_BUFFER_SIZE`, and tells the peer.
    pub fn set_buffer(&mut self, id: SocketId, bytes: u32) {
        let Some(socket) = self.sockets.get_mut(&id) else {
            return;
        };
        socket.resize(bytes);
        if socket.state == SocketState::Connected {
            self.say(id, Body::CreditUpdate, Vec::new());
        }
    }

    /// Requests a credit update from the peer, which Linux never does.
    pub fn request_credit(&mut self, id: SocketId) {
        self.say(id, Body::CreditRequest, Vec::new());
    }

    /// Returns the number of buffers that the device can fill.
    #[must_use]
    pub fn posted(&self) -> usize {
        self.rx_queue.posted()
    }
}
