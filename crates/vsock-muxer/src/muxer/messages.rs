// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Messages of the host, cut into packets for the guest (virtio 1.3, 5.10.6.6).

use std::collections::VecDeque;

use vsock_proto::{Header, MessageFlags, Progress};

use super::rx::{Carried, Pipe};
use crate::Action;
use crate::held::{Held, Message, Reading};
use crate::link::Link;

/// What a connection has for its messages.
pub(super) struct Source<'a> {
    pub(super) link: &'a mut Link,
    pub(super) held: &'a mut Option<Held>,
    /// Bytes that a message may have.
    pub(super) limit: usize,
    pub(super) reading: &'a mut Reading,
}

impl Pipe<'_> {
    /// Sends what is held of a message, then reads others, as long as a part of them can be sent.
    ///
    /// A packet is cut by credit and buffer alone, so the turn may be overdrawn by less than one.
    pub(super) fn send_messages(
        mut self,
        source: Source<'_>,
        turn: usize,
        actions: &mut VecDeque<Action>,
    ) -> Carried {
        let mut carried = Carried::default();
        let Source {
            link,
            held,
            limit,
            reading,
        } = source;
        if let Some(waiting) = held {
            let sent = match self.send(waiting.message(), turn, &mut carried) {
                Ok(sent) => sent,
                Err(why) => return self.finish(why, carried),
            };
            waiting.advance(sent);
            if !waiting.message().rest.is_empty() {
                return carried;
            }
            *held = None;
        }
        while carried.cost() < turn && self.has_room() {
            let message = match reading.receive(link, limit) {
                Ok(message) => message,
                Err(why) => {
                    if why == Progress::Pending {
                        link.note_drained(actions);
                    }
                    return self.finish(why, carried);
                }
            };
            let sent = match self.send(message, turn, &mut carried) {
                Ok(sent) => sent,
                Err(why) => return self.finish(why, carried),
            };
            let rest = message.rest.get(sent..).unwrap_or_default();
            if !rest.is_empty() {
                *held = Some(Held::new(Message { rest, ..message }));
                break;
            }
        }
        carried
    }

    /// Sends as much of a message as credit, buffers and turn allow, but at least one packet if there
    /// is room; returns how many bytes that were. Nothing of a message that the guest could not hold.
    fn send(
        &mut self,
        message: Message<'_>,
        turn: usize,
        carried: &mut Carried,
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
            carried.bytes += piece.len();
            carried.packets += 1;
            rest = later;
            if rest.is_empty() || carried.cost() >= turn {
                break;
            }
        }
        Ok(message.rest.len() - rest.len())
    }

    /// Whether a packet with payload can be sent.
    fn has_room(&mut self) -> bool {
        self.grant.packet_bytes() > 0
            && self.grant.packets() > 0
            && self.buffers.room().is_some_and(|room| room > 0)
    }

    fn finish(self, why: Progress, mut carried: Carried) -> Carried {
        carried.finished = true;
        carried.ended = why == Progress::Closed;
        self.grant.finish(why);
        carried
    }
}
