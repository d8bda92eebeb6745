// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The protocol, as it looks between device and guest.

use std::collections::BTreeMap;

use vsock_proto::{
    Cid, GuestCid, Header, MessageFlags, Op, ShutdownFlags, SocketType, SocketTypes,
};

use super::failure::{SimFailure, require};

/// Both ports of a connection, the host's first.
type Tuple = (u32, u32);

/// Watches every packet between a device and its guest, in the order in which the device takes and
/// sends them, and says what the device must not have sent.
///
/// It takes nothing for granted of the guest. What it holds against the device:
///
/// - it speaks for the host, to its guest, in known operations and types;
/// - a RESPONSE answers a REQUEST, and comes first on its connection;
/// - payload comes on a connection that is there, before the end of sending, and never beyond what
///   the guest has granted in the packets that the device has taken; only a message may be empty,
///   and have an end;
/// - after an RST of either side nothing comes but a new REQUEST;
/// - an RST without a connection answers a packet that had none, and never an RST;
/// - `fwd_cnt` never runs backwards, nor ahead of what the guest has sent;
/// - a shutdown takes nothing back.
#[derive(Clone, Debug)]
pub struct Checker {
    guest: u64,
    types: SocketTypes,
    conns: BTreeMap<Tuple, Seen>,
    /// RSTs that the device may send, and those among them that it must.
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
    /// The device's counter of payload, and what the guest has said of its buffer.
    sent: u32,
    buf_alloc: u32,
    fwd_cnt: u32,
    /// The guest's counter of payload, and what the device has said last; `None` at first.
    received: u32,
    told: Option<u32>,
    shutdown: ShutdownFlags,
    /// What has asked for the tuple meanwhile, by a socket of another type.
    next: Option<Box<Self>>,
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
            next: None,
        }
    }

    fn credit(&mut self, header: &Header) {
        let in_flight = self.sent.wrapping_sub(self.fwd_cnt);
        let advance = header.fwd_cnt.wrapping_sub(self.fwd_cnt);
        self.buf_alloc = header.buf_alloc;
        // A lie about what was taken opens nothing.
        if advance <= in_flight {
            self.fwd_cnt = header.fwd_cnt;
        }
    }

    /// The device has sent a packet of this connection, other than a REQUEST or an RST.
    fn on_put(&mut self, op: Op, header: &Header) -> Result<(), &'static str> {
        if self.socket_type != header.socket_type {
            return Err("a packet of another type than its connection's");
        }
        match (op, self.stage) {
            (Op::Response, Stage::GuestAsked) => {
                self.stage = Stage::Connected;
                self.received = self.received.wrapping_add(header.fwd_cnt);
            }
            (Op::Response, _) => return Err("a RESPONSE to no REQUEST"),
            (_, Stage::Connected) => {}
            _ => return Err("a packet before the connection is there"),
        }
        let ahead = self.received.wrapping_sub(header.fwd_cnt);
        let back = self
            .told
            .map_or(0, |told| header.fwd_cnt.wrapping_sub(told));
        if ahead > u32::MAX / 2 || back > u32::MAX / 2 {
            return Err("a fwd_cnt that runs backwards, or ahead of what was sent");
        }
        self.told = Some(header.fwd_cnt);
        match op {
            Op::Shutdown => {
                let flags = ShutdownFlags::from_bits(header.flags);
                if !flags.contains(self.shutdown) || flags.is_empty() {
                    return Err("a shutdown that takes another back");
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
                    return Err("payload beyond the credit");
                }
                // Only a message may be empty, and the end of one that is not.
                let ends = MessageFlags::from_bits(header.flags).ends_message();
                if header.len == 0 && !(self.is_seqpacket() && ends) {
                    return Err("a payload of nothing");
                }
                if header.flags != 0 && !self.is_seqpacket() {
                    return Err("an end of a message on a stream");
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
    /// Nothing has been seen.
    #[must_use]
    pub fn new(guest: GuestCid, types: SocketTypes) -> Self {
        Self {
            guest: guest.into(),
            types,
            conns: BTreeMap::new(),
            owed: BTreeMap::new(),
        }
    }

    /// The device was reset: nothing that was before counts.
    pub fn clear(&mut self) {
        self.conns.clear();
        self.owed.clear();
    }

    /// Connections that device and guest have in common, as far as the packets tell.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.conns.len()
    }

    /// RSTs that the device must still send.
    #[must_use]
    pub fn owed_resets(&self) -> usize {
        self.owed.values().filter(|must| **must).count()
    }

    /// The device has taken a packet of the guest.
    pub fn on_taken(&mut self, header: &Header) {
        if header.src_cid != self.guest {
            return;
        }
        let tuple = (header.dst_port, header.src_port);
        let owed = (header.dst_cid, tuple, header.socket_type);
        let Ok(op) = Op::try_from(header.op) else {
            self.owed.entry(owed).or_insert(false); // may be answered, or not
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
        let known = self
            .conns
            .get(&tuple)
            .is_some_and(|conn| conn.socket_type == header.socket_type);
        match op {
            Op::Reset => self.on_reset_taken(tuple, owed, known),
            Op::Request => {
                let mut conn = Seen::new(Stage::GuestAsked, header.socket_type);
                conn.begin(header);
                if let Some(other) = self.conns.get_mut(&tuple).filter(|_| !known) {
                    // One of another type leaves what is there alone, and comes after it if that is
                    // over for the device already.
                    other.next = Some(Box::new(conn));
                    self.owed.entry(owed).or_insert(false);
                    return;
                }
                if self.conns.insert(tuple, conn).is_some() {
                    // The device may refuse the newcomer, or let it take the old one's place.
                    self.owed.entry(owed).or_insert(false);
                }
                // An RST that is owed to the tuple's past would kill its new connection.
                let past = self.owed.iter_mut().filter(|((_, of, _), _)| *of == tuple);
                past.for_each(|(_, must)| *must = false);
            }
            _ if !known => {
                let next = self
                    .conns
                    .get(&tuple)
                    .is_some_and(|conn| conn.next.is_some());
                self.owed.insert(owed, !next);
            }
            Op::Response => self.on_response(tuple, header),
            _ => {
                if let Some(conn) = self.conns.get_mut(&tuple) {
                    conn.credit(header);
                    conn.received = conn.received.wrapping_add(header.len);
                }
            }
        }
    }

    fn on_reset_taken(&mut self, tuple: Tuple, owed: (u64, Tuple, u16), known: bool) {
        let ended = self
            .conns
            .get(&tuple)
            .filter(|_| known)
            .map(|conn| conn.stage);
        if ended.is_some() {
            self.end(tuple);
        } else {
            self.drop_next(tuple);
        }
        if ended == Some(Stage::GuestAsked) {
            self.owed.insert(owed, false); // the refusal of its REQUEST may be under way
        }
        // It crossed whatever was owed: that may still come, and need not.
        self.owed.entry(owed).and_modify(|must| *must = false);
    }

    /// A connection is over; a request that waits for its tuple is next.
    fn end(&mut self, tuple: Tuple) {
        let Some(next) = self.conns.remove(&tuple).and_then(|conn| conn.next) else {
            return;
        };
        // The RST that it is owed may be the one that refuses it.
        let owed = (u64::from(Cid::HOST), tuple, next.socket_type);
        self.owed.entry(owed).and_modify(|must| *must = false);
        self.conns.insert(tuple, *next);
    }

    /// A request that waits for the tuple is refused, or gives up.
    fn drop_next(&mut self, tuple: Tuple) {
        if let Some(conn) = self.conns.get_mut(&tuple) {
            conn.next = None;
        }
    }

    fn on_response(&mut self, tuple: Tuple, header: &Header) {
        if let Some(conn) = self.conns.get_mut(&tuple) {
            if conn.stage == Stage::HostAsked {
                conn.stage = Stage::Connected;
                conn.begin(header);
            } else {
                conn.credit(header);
            }
        }
    }

    /// The device has put a packet into a buffer of the guest.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn on_put(&mut self, header: &Header) -> Result<(), SimFailure> {
        let fail = |what: &str| Err(SimFailure::new(format!("{what}: {header:?}")));
        if header.dst_cid != self.guest {
            return fail("a packet for another guest");
        }
        let Ok(op) = Op::try_from(header.op) else {
            return fail("an operation that is none");
        };
        let tuple = (header.src_port, header.dst_port);
        if op == Op::Reset {
            return self.on_reset_put(tuple, header);
        }
        if header.src_cid != u64::from(Cid::HOST) {
            return fail("a packet in another's name");
        }
        if op != Op::ReadWrite && header.len != 0 {
            return fail("a payload where none belongs");
        }
        if op == Op::Request {
            if self.conns.contains_key(&tuple) {
                return fail("a REQUEST for a tuple that is in use");
            }
            let mut conn = Seen::new(Stage::HostAsked, header.socket_type);
            conn.received = header.fwd_cnt;
            conn.told = Some(header.fwd_cnt);
            self.conns.insert(tuple, conn);
            return Ok(());
        }
        let Some(conn) = self.conns.get_mut(&tuple) else {
            return fail("a packet for no connection, or after its RST");
        };
        conn.on_put(op, header)
            .map_err(|what| SimFailure::new(format!("{what}: {header:?}")))
    }

    fn on_reset_put(&mut self, tuple: Tuple, header: &Header) -> Result<(), SimFailure> {
        let from_host = header.src_cid == u64::from(Cid::HOST);
        let ends = from_host
            && self
                .conns
                .get(&tuple)
                .is_some_and(|conn| conn.socket_type == header.socket_type);
        if ends {
            self.end(tuple);
            return Ok(());
        }
        self.drop_next(tuple);
        let owed = (header.src_cid, tuple, header.socket_type);
        require(self.owed.remove(&owed).is_some(), || {
            format!("an RST that answers nothing: {header:?}")
        })
    }
}
