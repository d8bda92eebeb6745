// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Packets to the guest.

use vsock_proto::{Body, Header, SocketType, Tick, Transmit};

use super::messages::Source;
use crate::guest::GuestBuffers;
use crate::muxer::{Life, Muxer};
use crate::rxq::Next;
use crate::sender::{Sender, Sent};
use crate::slot::Slot;

/// How many bytes a connection may send per turn, if another one waits.
const TURN: usize = 64 * 1024;

impl Muxer {
    /// Returns whether [`transmit`](Self::transmit) has packets for the guest.
    #[must_use]
    pub fn wants_transmit(&self) -> bool {
        self.life != Life::Inactive && !self.rxq.is_empty()
    }

    /// Fills the guest's buffers until there are no more, nothing is left to send, or `budget`
    /// bytes were sent; each packet's header counts as well.
    ///
    /// Returns whether more could be sent with more buffers or a larger budget.
    ///
    /// Payload is never put into a buffer that has room for a header only. If only payload waits,
    /// such a buffer ends the call, which then returns `false`.
    pub fn transmit(&mut self, now: Tick, buffers: &mut dyn GuestBuffers, budget: usize) -> bool {
        self.unwinding(|muxer| muxer.send_packets(now, buffers, budget))
    }

    fn send_packets(&mut self, now: Tick, buffers: &mut dyn GuestBuffers, budget: usize) -> bool {
        let mut left = budget;
        // How many connections in a row had no use for the current buffer.
        let mut unfit = 0;
        while left > 0 && self.wants_transmit() {
            let Some(room) = buffers.room() else {
                break;
            };
            let round = self.rxq.round();
            let used = match self.rxq.pop() {
                None => break,
                Some(Next::Reset(reply)) => {
                    buffers.put(&self.route.reset_header(&reply));
                    self.counters.packets_to_guest += 1;
                    Header::LEN
                }
                // Every queued connection has been tried: this buffer is too small for all of them.
                Some(Next::Connection(slot, lane)) if unfit >= round => {
                    self.rxq.push(slot, lane);
                    return false;
                }
                Some(Next::Connection(slot, lane)) => {
                    // The client may have left without an event. It must not reach the guest then.
                    self.ask_before_request(now, slot);
                    let Some(bytes) = self.take_turn(now, slot, buffers, room, left) else {
                        self.rxq.push(slot, lane);
                        unfit += 1;
                        continue;
                    };
                    bytes
                }
            };
            unfit = 0;
            left = left.saturating_sub(used);
        }
        self.wants_transmit()
    }

    /// Lets one connection send one pending packet, or as much payload as its turn allows. Returns
    /// how many bytes of the budget were used, or `None` if the connection has something to send
    /// but nothing that fits into the current buffer.
    fn take_turn(
        &mut self,
        now: Tick,
        slot: Slot,
        buffers: &mut dyn GuestBuffers,
        room: usize,
        budget: usize,
    ) -> Option<usize> {
        // A turn matters only if another connection waits for one.
        let limit = if self.rxq.is_empty() {
            budget
        } else {
            budget.min(TURN)
        };
        let Some(entry) = self.table.connection(slot) else {
            return Some(0);
        };
        let is_message = entry.conn.socket_type() == SocketType::SeqPacket;
        let used = match entry.conn.poll_transmit(now, room) {
            None => 0,
            Some(Transmit::Packet(packet)) => {
                buffers.put(&self.route.header(&packet));
                self.counters.packets_to_guest += 1;
                let is_update = packet.body == Body::CreditUpdate;
                self.counters.credit_updates_to_guest += u64::from(is_update);
                Header::LEN
            }
            Some(Transmit::Data(grant)) => {
                let sender = Sender {
                    grant,
                    route: &self.route,
                    buffers,
                };
                let sent = match &mut entry.host {
                    Some(host) if is_message => {
                        let source = Source {
                            host,
                            unsent: &mut entry.unsent,
                            limit: self.config.max_message() as usize,
                            buffer: &mut self.message_buffer,
                        };
                        sender.send_messages(source, limit, &mut self.actions)
                    }
                    // Bytes that came with the command precede everything in the stream.
                    _ if !is_message && entry.unsent.is_some() => {
                        sender.send_bytes(&mut entry.unsent, room.min(limit))
                    }
                    Some(host) => sender.read(host, limit, &mut self.actions),
                    None => Sent::default(),
                };
                entry.bytes_to_guest += sent.bytes as u64;
                sent.count(&mut self.counters);
                if sent.is_stuck() {
                    return None;
                }
                if sent.found_end() {
                    if let Some(host) = &mut entry.host {
                        host.note_end(&mut self.actions);
                    }
                }
                sent.cost()
            }
        };
        // Nothing was sent because only payload is left, for which the buffer has no room.
        if used == 0 && room == 0 && entry.conn.wants_transmit() {
            return None;
        }
        self.review(now, slot);
        Some(used)
    }
}
