// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Host clients that leave before the guest has answered.
//!
//! One that has given up is not announced to the guest: before a REQUEST takes a buffer, its client is
//! asked whether it is still there, because the event loop may not have said yet that it is not. One that
//! has written something and left is announced, because what was written arrives. One that has only ended its
//! sending is alive: it may wait for the answer.

use std::io::ErrorKind;

use vsock_proto::hybrid::MAX_LINE;
use vsock_proto::state::Phase;
use vsock_proto::{Progress, Slot, SocketType, Tick};

use super::accept::read;
use crate::early::Early;
use crate::entry::{Entry, Open};
use crate::held::{Held, Reading};
use crate::link::Link;
use crate::token::Place;
use crate::{Muxer, Readiness};

impl Muxer {
    /// Before a connection has its turn: a client that has left is not announced, and what has become of
    /// its connection may have no turn.
    pub(super) fn ask_before_request(&mut self, now: Tick, slot: Slot) {
        if self
            .table
            .open(slot)
            .is_some_and(|open| open.has_lost_its_client())
        {
            self.on_departure(now, slot);
            // Where it goes on, it does so now.
            self.rxq.remove(slot);
        }
    }

    /// What an event has said of a client whose command has come with it counts for its connection.
    pub(super) fn on_command_event(&mut self, now: Tick, place: Place, ready: Readiness) {
        if let Some(Entry::Open(open)) = self.table.tenant(place)
            && (ready.hangup || open.link.as_ref().is_some_and(Link::is_left))
        {
            self.on_departure(now, place.slot);
        }
    }

    /// The client of a connection is seen to have left.
    fn on_departure(&mut self, now: Tick, slot: Slot) {
        if let Some(open) = self.table.open(slot)
            && let Some(link) = &mut open.link
        {
            link.note_hangup(&mut self.actions);
            open.conn.on_host_readable(now);
            self.review(now, slot);
        }
    }
}

impl Open {
    /// Whether the REQUEST is next to be sent, and its client has left without an event that said so.
    fn has_lost_its_client(&self) -> bool {
        self.conn.phase() == Phase::Requesting
            && self.link.as_ref().is_some_and(Link::has_left_unseen)
    }

    /// The other end of the stream is gone.
    pub(super) fn depart(&mut self, now: Tick, reading: &mut Reading, max_message: usize) {
        let unanswered = matches!(self.conn.phase(), Phase::Requesting | Phase::Requested);
        if unanswered && self.keeps_leftovers(reading, max_message) {
            self.conn.on_host_left(now);
        } else {
            self.conn.on_host_hangup(now);
        }
    }

    /// Whether there is something for the guest, or may be. Only a read can tell, so what it finds is
    /// kept, as what came with the command is.
    fn keeps_leftovers(&mut self, reading: &mut Reading, max_message: usize) -> bool {
        let Some(link) = &mut self.link else {
            return false;
        };
        if self.conn.socket_type() == SocketType::SeqPacket {
            let message = reading.receive(link, max_message);
            let is_open = matches!(message, Err(Progress::Pending));
            self.held = message.ok().map(Held::new);
            return is_open || self.held.is_some();
        }
        if !self.early.is_empty() {
            return true;
        }
        let mut buffer = [0; MAX_LINE];
        match read(link.stream(), &mut buffer) {
            Ok(len) => self.early = Early::new(buffer.get(..len).unwrap_or_default()),
            Err(error) => return error == ErrorKind::WouldBlock,
        }
        !self.early.is_empty()
    }
}
