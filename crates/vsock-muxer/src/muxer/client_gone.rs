// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Host clients that leave before the guest has answered.
//!
//! The guest should not learn of a client that has given up. Before a REQUEST is put into a buffer,
//! the muxer therefore checks whether the client is still there, because the event loop may not
//! have reported yet that it has left. There are two exceptions: if the client has written data
//! before it left, the guest learns of it, because written data must arrive; and if the client has
//! only ended its sending, it may still wait for the answer.

use std::io::ErrorKind;

use vsock_proto::handshake::MAX_LINE;
use vsock_proto::{ConnKey, Phase, Progress, SocketType, Tick};

use crate::entry::{ConnectionEntry, Entry};
use crate::host_stream::HostStream;
use crate::muxer::Muxer;
use crate::slot::{Slot, SlotKey};
use crate::stream_calls::read;
use crate::token::Readiness;
use crate::unsent::{MessageBuffer, Unsent};

impl Muxer {
    /// Checks, before a connection has its turn, whether its client has left. In that case, the
    /// connection is not announced and may lose its turn.
    pub(super) fn ask_before_request(&mut self, now: Tick, slot: Slot) {
        if self.loses_its_client(now, slot) {
            // The review may have queued it again, but if it continues, it does so in this turn.
            self.rxq.remove(slot);
        }
    }

    /// Checks, before a sibling's new connection is refused because its tuple is in use, whether
    /// the client of the connection with that tuple has left. Both may have waited for the guest
    /// while it was paused, and are then accepted in one turn.
    pub(super) fn ask_before_refusal(&mut self, now: Tick, ports: Option<ConnKey>) {
        if let Some(slot) = ports.and_then(|ports| self.table.find(ports)) {
            self.loses_its_client(now, slot);
        }
    }

    /// Handles a client that has left before the REQUEST was sent, if no event has reported it yet.
    /// Returns whether it has left.
    fn loses_its_client(&mut self, now: Tick, slot: Slot) -> bool {
        let entry = self.table.connection(slot);
        let left = entry.is_some_and(|entry| entry.has_lost_its_client());
        if left {
            self.on_client_gone(now, slot);
        }
        left
    }

    /// Applies an event to the connection that began with the client's command during the same
    /// event.
    pub(super) fn on_command_event(&mut self, now: Tick, key: SlotKey, ready: Readiness) {
        if let Some(Entry::Connection(entry)) = self.table.get(key) {
            if ready.hangup || entry.host.as_ref().is_some_and(HostStream::is_left) {
                self.on_client_gone(now, key.slot);
            }
        }
    }

    /// Handles a client that has left before the guest answered.
    fn on_client_gone(&mut self, now: Tick, slot: Slot) {
        if let Some(entry) = self.table.connection(slot) {
            if let Some(host) = &mut entry.host {
                host.note_hangup(&mut self.actions);
                entry.conn.on_host_readable(now);
                self.review(now, slot);
            }
        }
    }
}

impl ConnectionEntry {
    /// Returns whether the REQUEST is to be sent next and the client has left without an event.
    fn has_lost_its_client(&self) -> bool {
        self.conn.phase() == Phase::Requesting
            && self.host.as_ref().is_some_and(HostStream::has_left_unseen)
    }

    /// Handles the hang-up of the stream's peer.
    pub(super) fn on_hangup(&mut self, now: Tick, buffer: &mut MessageBuffer, max_message: usize) {
        let unanswered = matches!(self.conn.phase(), Phase::Requesting | Phase::Requested);
        if unanswered && self.keeps_leftovers(buffer, max_message) {
            self.conn.on_host_hangup_with_data(now);
        } else {
            self.conn.on_host_hangup(now);
        }
    }

    /// Returns whether the client has left data for the guest, or may have. Only a read can find
    /// out, so the bytes that it returns are kept, like those that came with the command.
    fn keeps_leftovers(&mut self, buffer: &mut MessageBuffer, max_message: usize) -> bool {
        let Some(host) = &mut self.host else {
            return false;
        };
        if self.conn.socket_type() == SocketType::SeqPacket {
            let message = buffer.receive(host, max_message);
            let is_open = matches!(message, Err(Progress::Pending));
            self.unsent = message.ok().map(Unsent::message);
            return is_open || self.unsent.is_some();
        }
        if self.unsent.is_some() {
            return true;
        }
        let mut bytes = [0; MAX_LINE];
        match read(host.stream(), &mut bytes) {
            Ok(len) => self.unsent = Unsent::bytes(bytes.get(..len).unwrap_or_default()),
            Err(error) => return error == ErrorKind::WouldBlock,
        }
        self.unsent.is_some()
    }
}
