// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Packets from the guest.

use std::io::{self, ErrorKind};

use vsock_proto::{
    Body, Connection, Header, Packet, Phase, ResetReply, SocketType, Tick, Violation,
};

use crate::backends::addr;
use crate::busy::Target;
use crate::connection_info::Initiator;
use crate::entry::{ConnectionEntry, Entry};
use crate::guest::GuestPayload;
use crate::host_stream::HostStream;
use crate::muxer::{Life, Muxer};
use crate::payload::{Offer, ToStream};
use crate::refusal::{ConnectionRefusal, RefusalReason};
use crate::slot::Slot;

/// Whether a packet arrived alone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Arrival {
    Alone,
    /// Other packets follow, or the end of the batch.
    WithOthers,
}

impl Muxer {
    /// Returns whether the muxer can take the next packet of the guest.
    ///
    /// If it cannot, because too many replies wait for buffers, the caller must not process the
    /// transmit queue (virtio 1.3, 5.10.6.1).
    #[must_use]
    pub fn can_take_packet(&self) -> bool {
        !self.rxq.is_full()
    }

    /// Handles a packet of the guest: its header, which was copied once, and its payload of
    /// `header.len` bytes.
    ///
    /// Any packet is safe, and is answered as the specification requires. Packets are ignored while
    /// the muxer is not active.
    pub fn on_packet(&mut self, now: Tick, header: &Header, payload: &mut dyn GuestPayload) {
        self.unwinding(|muxer| muxer.take_packet(now, header, payload, Arrival::Alone));
    }

    pub(super) fn take_packet(
        &mut self,
        now: Tick,
        header: &Header,
        payload: &mut dyn GuestPayload,
        arrival: Arrival,
    ) {
        self.counters.packets_from_guest += 1;
        if self.life == Life::Inactive {
            self.counters.packets_rejected += 1;
            return;
        }
        let packet = match self.route.parse(header) {
            Ok(packet) => packet,
            Err(reject) => {
                self.counters.packets_rejected += 1;
                self.owe_reset(reject.reply);
                return;
            }
        };
        if packet.body == Body::CreditUpdate {
            self.counters.credit_updates_from_guest += 1;
        }
        match self.table.find(packet.key) {
            Some(slot) => self.deliver(now, slot, &packet, payload, arrival),
            None if packet.body == Body::Request => self.on_request(now, &packet),
            None => {
                self.counters.packets_unmatched += 1;
                self.owe_reset(self.route.reset_for(&packet));
            }
        }
    }

    /// Passes a packet to an existing connection.
    fn deliver(
        &mut self,
        now: Tick,
        slot: Slot,
        packet: &Packet,
        payload: &mut dyn GuestPayload,
        arrival: Arrival,
    ) {
        let Some(entry) = self.table.connection(slot) else {
            return;
        };
        let offer = entry.prepare_for(now, packet, arrival);
        let waited = entry.conn.interest().write;
        // In any other phase, the connection ignores payload, or breaks.
        let takes_payload = matches!(entry.conn.phase(), Phase::Connected | Phase::Lingering);
        let mut reply = None;
        let mut payload = ToStream {
            payload,
            stream: entry.host.as_mut().map(HostStream::stream),
            offer,
        };
        match entry.conn.on_packet(now, packet, &mut payload) {
            Ok(()) => {
                let bytes = match packet.body {
                    Body::Data(_) if takes_payload => u64::from(packet.len),
                    _ => 0,
                };
                entry.bytes_from_guest += bytes;
                self.counters.bytes_from_guest += bytes;
            }
            Err(Violation::WrongType) => reply = self.route.reset_for(packet),
            // The connection resets itself.
            Err(_) => {}
        }
        // If the stream accepted only a part, it may be ready again by now without another edge: an
        // edge follows only a refusal. The pieces of a message, in turn, were not offered yet. Both
        // must be tried now.
        let waits = !waited && entry.conn.interest().write;
        let is_message = packet.socket_type == SocketType::SeqPacket;
        if waits && offer == Offer::WithOthers {
            self.gather(now, slot);
        } else if waits && (is_message || entry.host.as_ref().is_some_and(HostStream::awaits_edge))
        {
            entry.flush(now);
        }
        self.owe_reset(reply);
        self.review(now, slot);
        // The guest has no record of the previous connection and begins a new one.
        if packet.body == Body::Request && reply.is_none() && !self.table.contains(packet.key) {
            self.on_request(now, packet);
        }
    }

    /// Handles a guest that requests a connection.
    fn on_request(&mut self, now: Tick, request: &Packet) {
        self.counters.guest_initiated += 1;
        // A pending RST for a previous connection with this tuple would reset the new one.
        self.rxq.cancel_reset(request.key, request.socket_type);
        if self.table.connections() >= self.config.max_connections() {
            self.refuse_request(request, RefusalReason::TooManyConnections, None);
            return;
        }
        if self.life == Life::ShuttingDown {
            self.refuse_request(request, RefusalReason::ShuttingDown, None);
            return;
        }
        // Earlier requests for the same component are served first.
        let target = Target::of(request);
        self.ask_again(now, target);
        let stream = if self.busy.has(target) {
            Err(ErrorKind::WouldBlock.into())
        } else {
            let from = addr(self.guest.cid(), request.key.peer);
            self.backends.connect(from, target)
        };
        let later = matches!(&stream, Err(error) if error.kind() == ErrorKind::WouldBlock);
        if later && self.busy.len() >= self.config.max_accepting() {
            self.refuse_request(request, RefusalReason::TooManyAccepting, None);
            return;
        }
        let key = match stream {
            Err(_) if !later => None,
            _ => self.table.reserve(),
        };
        let Some(key) = key else {
            let error = stream.err().as_ref().map(io::Error::kind);
            self.refuse_request(request, RefusalReason::Backend, error);
            return;
        };
        let conn = Connection::accept(&self.config, request, now);
        let birth = self.births.next(now);
        let mut entry = ConnectionEntry::new(Initiator::Guest, birth, conn, None);
        if stream.is_err() {
            let met = || self.backends.listener(target);
            entry.ticket = Some(self.busy.add(now, target, key.slot, met));
        }
        self.table.put(key, Entry::Connection(Box::new(entry)));
        if let Ok(stream) = stream {
            self.begin_connect(now, key, stream);
        }
        self.review(now, key.slot);
    }

    /// Answers a REQUEST with an RST.
    fn refuse_request(
        &mut self,
        request: &Packet,
        reason: RefusalReason,
        error: Option<ErrorKind>,
    ) {
        self.owe_reset(self.route.reset_for(request));
        let refusal = ConnectionRefusal::of_connection(reason, Initiator::Guest, request.key);
        self.note_refusal(refusal.with_error(error));
    }

    fn owe_reset(&mut self, reply: Option<ResetReply>) {
        if let Some(reply) = reply {
            // If the caller checks `can_take_packet` first, there is always room for the RST.
            let kept = self.rxq.owe_reset(reply);
            debug_assert!(
                kept.is_ok(),
                "a packet was passed while none could be taken"
            );
        }
    }
}
