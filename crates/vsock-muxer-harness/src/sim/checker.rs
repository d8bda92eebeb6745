// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The protocol, as seen between device and guest.

use std::collections::BTreeMap;

use vsock_proto::{
    Cid, GuestCid, Header, MessageFlags, Op, ShutdownFlags, SocketType, SocketTypes,
};

use super::failure::{SimFailure, require};

/// Both ports of a connection, the host's first.
type Tuple = (u32, u32);

/// A tuple and a socket type. While the device has not answered, requests of both types can be
/// pending for a tuple.
type Flow = (Tuple, u16);

/// Checks every packet between a device and its guest, in the order in which the device takes and
/// sends them, and reports packets that the device must not send.
///
/// It assumes nothing about the guest. It checks that:
///
/// - the device sends packets on behalf of the host, to its guest, with known operations and types;
/// - a RESPONSE answers a REQUEST, and is the first packet of its connection;
/// - payload is sent only on an established connection, before the end of sending, and within the
///   credit in the packets that the device has taken; only a message may be empty or have an end;
/// - after an RST from either side, nothing follows except a new REQUEST;
/// - a tuple has one connection, and a request of the other socket type gets an RST of that type;
/// - an RST without a connection answers a packet without a connection, and never an RST;
/// - `fwd_cnt` never decreases, and never exceeds what the guest has sent;
/// - a shutdown never revokes an earlier one.
#[derive(Clone, Debug)]
pub struct Checker {
    guest: u64,
    types: SocketTypes,
    /// A tuple has either one flow that is established or that the host has requested, or the
    /// guest's pending requests, at most one of each type.
    conns: BTreeMap<Flow, Seen>,
    /// The RSTs that the device may send, each with whether it must.
    owed: BTreeMap<(u64, Tuple, u16), bool>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    HostAsked,
    GuestAsked,
    Connected,
}

#[derive(Clone, Debug)]
struct Seen {
    stage: Stage,
    socket_type: u16,
    /// The device's payload counter, and the buffer as reported by the guest.
    sent: u32,
    buf_alloc: u32,
    fwd_cnt: u32,
    /// The guest's payload counter, and the value last reported by the device; `None` at first.
    received: u32,
    told: Option<u32>,
    shutdown: ShutdownFlags,
}

impl Seen {
    const fn new(stage: Stage, socket_type: u16) -> Self {
        Self {
            stage,
            socket_type,
            sent: 0,
            buf_alloc: 0,
            fwd_cnt: 0,
            received: 0,
            told: None,
            shutdown: ShutdownFlags::NONE,
        }
    }

    fn credit(&mut self, header: &Header) {
        let in_flight = self.sent.wrapping_sub(self.fwd_cnt);
        let advance = header.fwd_cnt.wrapping_sub(self.fwd_cnt);
        self.buf_alloc = header.buf_alloc;
        // A guest that claims more than it was sent gains no credit.
        if advance <= in_flight {
            self.fwd_cnt = header.fwd_cnt;
        }
    }

    /// Checks a packet of this connection from the device, other than a REQUEST or an RST.
    fn on_put(&mut self, op: Op, header: &Header) -> Result<(), &'static str> {
        match (op, self.stage) {
            (Op::Response, Stage::GuestAsked) => {
                self.stage = Stage::Connected;
                self.received = self.received.wrapping_add(header.fwd_cnt);
            }
            (Op::Response, _) => return Err("a RESPONSE without a REQUEST"),
            (_, Stage::Connected) => {}
            _ => return Err("a packet before the connection is established"),
        }
        let ahead = self.received.wrapping_sub(header.fwd_cnt);
        let back = self
            .told
            .map_or(0, |told| header.fwd_cnt.wrapping_sub(told));
        if ahead > u32::MAX / 2 || back > u32::MAX / 2 {
            return Err("a fwd_cnt that decreases, or exceeds what was sent");
        }
        self.told = Some(header.fwd_cnt);
        match op {
            Op::Shutdown => {
                let flags = ShutdownFlags::from_bits(header.flags);
                if !flags.contains(self.shutdown) || flags.is_empty() {
                    return Err("a SHUTDOWN that revokes an earlier one");
                }
                self.shutdown = flags;
            }
            Op::ReadWrite => {
                if self.shutdown.contains(ShutdownFlags::SEND) {
                    return Err("payload after the end of sending");
                }
                let in_flight = self.sent.wrapping_sub(self.fwd_cnt);
                let credit = self.buf_alloc.saturating_sub(in_flight);
                if header.len > credit {
                    return Err("payload that exceeds the credit");
                }
                // Only a message may be empty, and only at its end.
                let ends = MessageFlags::from_bits(header.flags).ends_message();
                if header.len == 0 && !(self.is_seqpacket() && ends) {
                    return Err("an empty payload");
                }
                if header.flags != 0 && !self.is_seqpacket() {
                    return Err("the end of a message on a stream");
                }
                self.sent = self.sent.wrapping_add(header.len);
            }
            _ => {}
        }
        Ok(())
    }

    fn is_seqpacket(&self) -> bool {
        SocketType::try_from(self.socket_type) == Ok(SocketType::SeqPacket)
    }

    fn begin(&mut self, header: &Header) {
        self.buf_alloc = header.buf_alloc;
        self.fwd_cnt = header.fwd_cnt;
        self.sent = header.fwd_cnt;
    }
}

impl Checker {
    /// Creates a checker that has seen no packets.
    #[must_use]
    pub fn new(guest: GuestCid, types: SocketTypes) -> Self {
        Self {
            guest: guest.into(),
            types,
            conns: BTreeMap::new(),
            owed: BTreeMap::new(),
        }
    }

    /// Forgets everything, because the device was reset.
    pub fn clear(&mut self) {
        self.conns.clear();
        self.owed.clear();
    }

    /// Returns the number of connections of which both device and guest have a record, according to
    /// the packets.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.conns.len()
    }

    /// Returns the number of RSTs that the device must still send.
    #[must_use]
    pub fn owed_resets(&self) -> usize {
        self.owed.values().filter(|must| **must).count()
    }

    /// Records a packet of the guest that the device has taken.
    pub fn on_taken(&mut self, header: &Header) {
        if header.src_cid != self.guest {
            return;
        }
        let tuple = (header.dst_port, header.src_port);
        let owed = (header.dst_cid, tuple, header.socket_type);
        let Ok(op) = Op::try_from(header.op) else {
            self.owed.entry(owed).or_insert(false); // The device may answer or ignore it.
            return;
        };
        if header.dst_cid != u64::from(Cid::HOST) {
            if op != Op::Reset {
                self.owed.entry(owed).or_insert(false);
            }
            return;
        }
        let in_use =
            SocketType::try_from(header.socket_type).is_ok_and(|known| self.types.contains(known));
        if !in_use {
            if op != Op::Reset {
                self.owed.insert(owed, true);
            }
            return;
        }
        let flow = (tuple, header.socket_type);
        match op {
            Op::Reset => self.on_reset_taken(flow, owed),
            Op::Request => self.on_request_taken(flow, owed, header),
            _ if !self.conns.contains_key(&flow) => {
                self.owed.insert(owed, true);
            }
            Op::Response => self.on_response(flow, header),
            _ => {
                if let Some(conn) = self.conns.get_mut(&flow) {
                    conn.credit(header);
                    conn.received = conn.received.wrapping_add(header.len);
                }
            }
        }
    }

    fn on_request_taken(&mut self, flow: Flow, owed: (u64, Tuple, u16), header: &Header) {
        if self.is_taken_from(flow) {
            // A request of another type does not affect the connection, and is refused.
            self.owed.insert(owed, true);
            return;
        }
        // A pending RST for an earlier connection of this flow would reset the new one.
        self.owed.entry(owed).and_modify(|must| *must = false);
        let mut conn = Seen::new(Stage::GuestAsked, header.socket_type);
        conn.begin(header);
        if self.conns.insert(flow, conn).is_some() {
            // The device may refuse the new connection, or let it replace the old one.
            self.owed.entry(owed).or_insert(false);
        }
    }

    fn on_reset_taken(&mut self, flow: Flow, owed: (u64, Tuple, u16)) {
        let ended = self.conns.remove(&flow).map(|conn| conn.stage);
        if ended == Some(Stage::GuestAsked) {
            self.owed.insert(owed, false); // The refusal of its REQUEST may be in flight.
        }
        // The guest's RST crossed any pending one, which may still arrive but need not.
        self.owed.entry(owed).and_modify(|must| *must = false);
    }

    /// Returns the flows of other types with the same tuple.
    fn others(&self, flow: Flow) -> impl Iterator<Item = (&Flow, &Seen)> {
        let tuple = (flow.0, u16::MIN)..=(flow.0, u16::MAX);
        self.conns.range(tuple).filter(move |(of, _)| **of != flow)
    }

    /// Returns whether the device has a connection of another type with the same tuple. A pending
    /// request of the guest does not count, because the device may have refused it already.
    fn is_taken_from(&self, flow: Flow) -> bool {
        self.others(flow)
            .any(|(_, other)| other.stage != Stage::GuestAsked)
    }

    /// The device has this flow, so it has refused the guest's pending requests of other types. It
    /// has not sent their RSTs yet, or they would no longer be pending.
    fn refuse_others(&mut self, flow: Flow) {
        let refused: Vec<Flow> = self.others(flow).map(|(other, _)| *other).collect();
        for (tuple, socket_type) in refused {
            self.conns.remove(&(tuple, socket_type));
            let owed = (u64::from(Cid::HOST), tuple, socket_type);
            self.owed.insert(owed, true);
        }
    }

    fn on_response(&mut self, flow: Flow, header: &Header) {
        if let Some(conn) = self.conns.get_mut(&flow) {
            if conn.stage == Stage::HostAsked {
                conn.stage = Stage::Connected;
                conn.begin(header);
            } else {
                conn.credit(header);
            }
        }
    }

    /// Checks a packet that the device has put into a buffer of the guest.
    ///
    /// # Errors
    ///
    /// Returns what is wrong with it.
    pub fn on_put(&mut self, header: &Header) -> Result<(), SimFailure> {
        let fail = |what: &str| Err(SimFailure::new(format!("{what}: {header:?}")));
        if header.dst_cid != self.guest {
            return fail("a packet for another guest");
        }
        let Ok(op) = Op::try_from(header.op) else {
            return fail("an unknown operation");
        };
        let tuple = (header.src_port, header.dst_port);
        if op == Op::Reset {
            return self.on_reset_put(tuple, header);
        }
        if header.src_cid != u64::from(Cid::HOST) {
            return fail("a packet with a source CID other than the host's");
        }
        if op != Op::ReadWrite && header.len != 0 {
            return fail("payload in a packet that must not have any");
        }
        let flow = (tuple, header.socket_type);
        if op == Op::Request {
            if self.conns.contains_key(&flow) || self.is_taken_from(flow) {
                return fail("a REQUEST for a tuple that is in use");
            }
            let mut conn = Seen::new(Stage::HostAsked, header.socket_type);
            conn.received = header.fwd_cnt;
            conn.told = Some(header.fwd_cnt);
            self.conns.insert(flow, conn);
            self.refuse_others(flow);
            return Ok(());
        }
        let Some(conn) = self.conns.get_mut(&flow) else {
            return fail(match self.others(flow).next() {
                Some(_) => "a packet with another socket type than its connection",
                None => "a packet without a connection, or after its RST",
            });
        };
        conn.on_put(op, header)
            .map_err(|what| SimFailure::new(format!("{what}: {header:?}")))?;
        self.refuse_others(flow);
        Ok(())
    }

    fn on_reset_put(&mut self, tuple: Tuple, header: &Header) -> Result<(), SimFailure> {
        let from_host = header.src_cid == u64::from(Cid::HOST);
        let flow = (tuple, header.socket_type);
        if from_host && self.conns.remove(&flow).is_some() {
            return Ok(());
        }
        let owed = (header.src_cid, tuple, header.socket_type);
        require(self.owed.remove(&owed).is_some(), || {
            format!("an RST that answers no packet: {header:?}")
        })
    }
}
