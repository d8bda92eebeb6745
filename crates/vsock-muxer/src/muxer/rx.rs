// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Packets for the guest.

use std::collections::VecDeque;

use vsock_proto::{
    Body, DataGrant, Header, Next, Packet, Progress, Route, Slot, SocketType, Tick, Transmit,
};

use super::messages::Source;
use crate::early::Early;
use crate::link::Link;
use crate::muxer::Life;
use crate::{Action, Allowance, Counters, GuestBuffers, Muxer};

/// Bytes that a connection may send before it is the next one's turn, if somebody else waits.
const TURN: usize = 64 * 1024;

impl Muxer {
    /// Whether [`transmit`](Self::transmit) has something for the guest.
    #[must_use]
    pub fn wants_transmit(&self) -> bool {
        self.life != Life::Inactive && !self.rxq.is_empty()
    }

    /// Fills buffers of the guest until there are none, there is nothing to send, or `budget` bytes
    /// (each packet counts its header too) have been sent. Returns whether more could be sent at once,
    /// if there were buffers or budget.
    ///
    /// A buffer that has room for a header alone takes no payload; where nothing but payload waits,
    /// such a buffer ends the call, with `false`.
    pub fn transmit(&mut self, now: Tick, buffers: &mut dyn GuestBuffers, budget: usize) -> bool {
        self.unwinding(|muxer| muxer.send_packets(now, buffers, budget))
    }

    fn send_packets(&mut self, now: Tick, buffers: &mut dyn GuestBuffers, budget: usize) -> bool {
        let mut left = budget;
        // The first of those who could not use the buffer at hand.
        let mut unfit = None;
        while left > 0 && self.wants_transmit() {
            let Some(room) = buffers.room() else {
                break;
            };
            let used = match self.rxq.pop() {
                None => break,
                Some(Next::Reset(reply)) => {
                    buffers.put(&self.route.reset_header(&reply));
                    self.counters.packets_to_guest += 1;
                    Header::LEN
                }
                Some(Next::Connection(slot)) if unfit == Some(slot) => {
                    self.rxq.push(slot);
                    return false;
                }
                Some(Next::Connection(slot)) => {
                    self.ask_before_request(now, slot);
                    let Some(bytes) = self.take_turn(now, slot, buffers, room, left) else {
                        self.rxq.push(slot);
                        unfit = unfit.or(Some(slot));
                        continue;
                    };
                    bytes
                }
            };
            unfit = None;
            left = left.saturating_sub(used);
        }
        self.wants_transmit()
    }

    /// Lets one connection send: one packet that it owes, or as much payload as its turn allows.
    /// Returns how many bytes of budget that took; `None` if the connection has something, but
    /// nothing for the buffer at hand.
    fn take_turn(
        &mut self,
        now: Tick,
        slot: Slot,
        buffers: &mut dyn GuestBuffers,
        room: usize,
        budget: usize,
    ) -> Option<usize> {
        let limit = if self.rxq.is_empty() {
            budget
        } else {
            budget.min(TURN)
        };
        let Some(open) = self.table.open(slot) else {
            return Some(0);
        };
        let is_message = open.conn.socket_type() == SocketType::SeqPacket;
        let used = match open.conn.poll_transmit(now, room) {
            None => 0,
            Some(Transmit::Packet(packet)) => {
                buffers.put(&self.route.header(&packet));
                self.counters.packets_to_guest += 1;
                let is_update = packet.body == Body::CreditUpdate;
                self.counters.credit_updates_to_guest += u64::from(is_update);
                Header::LEN
            }
            Some(Transmit::Data(grant)) => {
                let pipe = Pipe {
                    grant,
                    route: &self.route,
                    buffers,
                };
                let carried = match &mut open.link {
                    _ if !open.early.is_empty() => pipe.send_early(&mut open.early, room, limit),
                    Some(link) if is_message => {
                        let source = Source {
                            link,
                            held: &mut open.held,
                            limit: self.config.max_message() as usize,
                            reading: &mut self.reading,
                        };
                        pipe.send_messages(source, limit, &mut self.actions)
                    }
                    Some(link) => pipe.read(link, limit, &mut self.actions),
                    None => Carried::default(),
                };
                open.bytes_to_guest += carried.bytes as u64;
                carried.count(&mut self.counters);
                if carried.is_stuck() {
                    return None;
                }
                if carried.ended
                    && let Some(link) = &mut open.link
                {
                    link.note_end(&mut self.actions);
                }
                carried.cost()
            }
        };
        if used == 0 && room == 0 && open.conn.wants_transmit() {
            return None;
        }
        self.review(now, slot);
        Some(used)
    }
}

/// What a turn has carried to the guest.
#[derive(Default)]
pub(super) struct Carried {
    pub(super) bytes: usize,
    pub(super) packets: usize,
    /// The stream said why there is no more.
    pub(super) finished: bool,
    /// It had come to its end.
    pub(super) ended: bool,
}

impl Carried {
    /// Nothing was carried, and nobody said why: the buffers were of no use.
    const fn is_stuck(&self) -> bool {
        self.packets == 0 && !self.finished
    }

    fn count(&self, counters: &mut Counters) {
        counters.bytes_to_guest += self.bytes as u64;
        counters.packets_to_guest += self.packets as u64;
    }

    /// What that is of the budget.
    pub(super) const fn cost(&self) -> usize {
        self.bytes + self.packets * Header::LEN
    }
}

/// From a stream to the guest, as far as the grant goes.
pub(super) struct Pipe<'a> {
    pub(super) grant: DataGrant<'a>,
    pub(super) route: &'a Route,
    pub(super) buffers: &'a mut dyn GuestBuffers,
}

impl Pipe<'_> {
    /// Reads from the stream into buffers.
    fn read(mut self, link: &mut Link, limit: usize, actions: &mut VecDeque<Action>) -> Carried {
        let allowance = Allowance {
            bytes: self.grant.bytes().min(limit),
            packets: self.grant.packets(),
            packet_bytes: self.grant.packet_bytes(),
        };
        let mut carried = Carried::default();
        let grant = &mut self.grant;
        let route = self.route;
        let progress = self.buffers.fill(link.stream(), allowance, &mut |len| {
            carried.bytes += len;
            carried.packets += 1;
            route.header(&grant.sent(len))
        });
        if progress == Progress::Pending {
            link.note_drained(actions);
        }
        carried.finished = !matches!(progress, Progress::Done(_));
        carried.ended = progress == Progress::Closed;
        self.grant.finish(progress);
        carried
    }

    /// Sends what came behind the command, before anything is read.
    fn send_early(mut self, early: &mut Early, room: usize, limit: usize) -> Carried {
        let max = self.grant.packet_bytes().min(room).min(limit);
        let bytes = early.first(max);
        let len = bytes.len();
        let packet: Packet = self.grant.sent(len);
        self.buffers.put_bytes(&self.route.header(&packet), bytes);
        early.consume(len);
        Carried {
            bytes: len,
            packets: 1,
            finished: false,
            ended: false,
        }
    }
}
