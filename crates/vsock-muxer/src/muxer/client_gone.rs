// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Host clients that leave before the guest has answered.
//!
//! One that has given up is not announced to the guest: before a REQUEST takes a buffer, its client
//! is asked whether it is still there, because the event loop may not have said yet that it is not.
//! One that has written something and left is announced, because what was written arrives. One that
//! has only ended its sending is alive: it may wait for the answer.

use std::io::ErrorKind;

use vsock_proto::handshake::MAX_LINE;
use vsock_proto::{Phase, Progress, SocketType, Tick};

use crate::entry::{ConnectionEntry, Entry};
use crate::host_stream::HostStream;
use crate::muxer::Muxer;
use crate::slot::{Slot, SlotKey};
use crate::stream_calls::read;
use crate::token::Readiness;
use crate::unsent::{MessageBuffer, Unsent};

impl Muxer {
    /// Before a connection has its turn: a client that has left is not announced, and what has
    /// become of its connection may have no turn.
    pub(super) fn ask_before_request(&mut self, now: Tick, slot: Slot) {
        let entry = self.table.connection(slot);
        if entry.is_some_and(|entry| entry.has_lost_its_client()) {
            self.on_client_gone(now, slot);
            // Where it goes on, it does so now.
            self.rxq.remove(slot);
        }
    }

    /// What an event has said of a client whose command has come with it counts for its connection.
    pub(super) fn on_command_event(&mut self, now: Tick, key: SlotKey, ready: Readiness) {
        if let Some(Entry::Connection(entry)) = self.table.get(key) {
            if ready.hangup || entry.host.as_ref().is_some_and(HostStream::is_left) {
                self.on_client_gone(now, key.slot);
            }
        }
    }

    /// The client of a connection is seen to have left.
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
    /// Whether the REQUEST is next to be sent, and its client has left without an event that said
    /// so.
    fn has_lost_its_client(&self) -> bool {
        self.conn.phase() == Phase::Requesting
            && self.host.as_ref().is_some_and(HostStream::has_left_unseen)
    }

    /// The other end of the stream is gone.
    pub(super) fn on_hangup(&mut self, now: Tick, buffer: &mut MessageBuffer, max_message: usize) {
        let unanswered = matches!(self.conn.phase(), Phase::Requesting | Phase::Requested);
        if unanswered && self.keeps_leftovers(buffer, max_message) {
            self.conn.on_host_hangup_with_data(now);
        } else {
            self.conn.on_host_hangup(now);
        }
    }

    /// Whether there is something for the guest, or may be. Only a read can tell, so what it finds
    /// is kept, as what came with the command is.
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
