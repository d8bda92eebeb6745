// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Splitting messages of the host into packets for the guest (virtio 1.3, 5.10.6.6).

use std::collections::VecDeque;

use vsock_proto::{Header, MessageFlags, Progress};

use crate::action::Action;
use crate::host_stream::HostStream;
use crate::sender::{Sender, Sent};
use crate::unsent::{Message, MessageBuffer, Unsent};

/// The parts of a connection that are needed to send messages.
pub(super) struct Source<'a> {
    pub(super) host: &'a mut HostStream,
    pub(super) unsent: &'a mut Option<Unsent>,
    /// The maximum length of a message in bytes.
    pub(super) limit: usize,
    pub(super) buffer: &'a mut MessageBuffer,
}

impl Sender<'_> {
    /// Sends the rest of the current message, then reads and sends others, as long as at least a
    /// part of them can be sent.
    ///
    /// Packets are split by credit and buffer size only, so a turn can be exceeded by less than one
    /// packet.
    pub(super) fn send_messages(
        mut self,
        source: Source<'_>,
        turn: usize,
        actions: &mut VecDeque<Action>,
    ) -> Sent {
        let mut total = Sent::default();
        let Source {
            host,
            unsent,
            limit,
            buffer,
        } = source;
        if let Some(waiting) = unsent {
            let sent = match self.send(waiting.rest(), turn, &mut total) {
                Ok(sent) => sent,
                Err(why) => return self.stop(why, total),
            };
            if !waiting.advance(sent) {
                return total;
            }
            *unsent = None;
        }
        // Read a message only if a part of it can be sent, so that at most one message per
        // connection is held in memory.
        while total.cost() < turn && self.has_room() {
            let message = match buffer.receive(host, limit) {
                Ok(message) => message,
                Err(why) => {
                    if why == Progress::Pending {
                        host.note_drained(actions);
                    }
                    return self.stop(why, total);
                }
            };
            let sent = match self.send(message, turn, &mut total) {
                Ok(sent) => sent,
                Err(why) => return self.stop(why, total),
            };
            let rest = message.rest.get(sent..).unwrap_or_default();
            if !rest.is_empty() {
                *unsent = Some(Unsent::message(Message { rest, ..message }));
                break;
            }
        }
        total
    }

    /// Sends as much of a message as the credit, the buffers and the turn allow, but at least one
    /// packet if there is room. Returns how many bytes were sent. Sends no part of a message that
    /// is too long for the guest.
    fn send(
        &mut self,
        message: Message<'_>,
        turn: usize,
        total: &mut Sent,
    ) -> Result<usize, Progress> {
        if message.len > self.grant.message_limit() {
            return Err(Progress::TooLong);
        }
        let mut rest = message.rest;
        while self.has_room() {
            let room = self.buffers.room().unwrap_or(0);
            let most = room.min(self.grant.packet_bytes());
            let (piece, later) = rest.split_at(rest.len().min(most));
            let flags = if later.is_empty() {
                message.flags
            } else {
                MessageFlags::NONE
            };
            let header: Header = self
                .route
                .header(&self.grant.sent_piece(piece.len(), flags));
            self.buffers.put_bytes(&header, piece);
            total.bytes += piece.len();
            total.packets += 1;
            rest = later;
            if rest.is_empty() || total.cost() >= turn {
                break;
            }
        }
        Ok(message.rest.len() - rest.len())
    }

    /// Returns whether a packet with payload can be sent.
    fn has_room(&mut self) -> bool {
        self.grant.packet_bytes() > 0
            && self.grant.packets() > 0
            && self.buffers.room().is_some_and(|room| room > 0)
    }
}
