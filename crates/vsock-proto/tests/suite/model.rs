// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A connection under any sequence of events, compared with a model of the guest and the host.
//!
//! The guest is honest: it sends within the credit that it knows, and nothing after it has ended
//! its sending. The host's stream may do anything.

use std::time::Duration;

use proptest::prelude::*;
use vsock_properties::cases;
use vsock_proto::{
    Body, Confirmation, Credit, Ending, HostAction, Interest, MessageFlags, Packet, Phase,
    ShutdownFlags, SocketType,
};

use crate::rig::{BOTH, End, GUEST, RW, Rig, credit, limits};

#[derive(Clone, Debug)]
enum Op {
    GuestSends(usize),
    GuestReads(u32),
    GuestAsks,
    GuestShuts(u32),
    GuestResets,
    GuestResizes(u32),
    HostWrites(usize),
    HostEnds,
    HostBreaks,
    HostCloses,
    HostReads(usize),
    HostConnects,
    HostRefuses,
    DeviceStops,
    Flush,
    Transmit(usize),
    Passes(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => (0_usize..3000).prop_map(Op::GuestSends),
        8 => (0_u32..5000).prop_map(Op::GuestReads),
        2 => Just(Op::GuestAsks),
        2 => (0_u32..4).prop_map(Op::GuestShuts),
        1 => Just(Op::GuestResets),
        1 => (0_u32..9000).prop_map(Op::GuestResizes),
        12 => (1_usize..3000).prop_map(Op::HostWrites),
        1 => Just(Op::HostEnds),
        1 => Just(Op::HostBreaks),
        1 => Just(Op::HostCloses),
        10 => (0_usize..4000).prop_map(Op::HostReads),
        4 => Just(Op::HostConnects),
        1 => Just(Op::HostRefuses),
        1 => Just(Op::DeviceStops),
        4 => Just(Op::Flush),
        16 => prop_oneof![Just(0), 1_usize..64, 64_usize..5000].prop_map(Op::Transmit),
        3 => (0_u64..1500).prop_map(Op::Passes),
    ]
}

/// The guest's state.
#[derive(Debug, Default)]
struct Guest {
    sent: Vec<u8>,
    got: Vec<u8>,
    /// Bytes that it has read out of its buffer.
    read: usize,
    /// The device's buffer, as reported by its last packet.
    credit: Option<Credit>,
    /// Whether the guest initiated the connection.
    asked: bool,
    connected: bool,
    flags: ShutdownFlags,
    /// Whether it has received or sent an RST.
    reset: bool,
    resets_got: usize,
    /// The largest buffer that it has ever reported.
    largest: u32,
    /// Whether it has an update that the device has not received.
    unsaid: bool,
}

#[derive(Debug)]
struct World {
    rig: Rig,
    guest: Guest,
    host_wrote: Vec<u8>,
    host_start: u32,
    next: u8,
}

const WINDOW: u32 = 4096;

impl World {
    fn new(host_initiated: bool, start: u32, guest_start: u32) -> Self {
        let config = limits(|limits| limits.buf_alloc(WINDOW));
        let guest = credit(3000, guest_start);
        let mut rig = if host_initiated {
            Rig::requesting(config, Confirmation::Line)
        } else {
            Rig::accepting_from(config, SocketType::Stream, guest)
        };
        rig.guest = guest;
        rig.conn = rig.conn.with_fwd_cnt(start);
        rig.host.space = 1000;
        let guest = Guest {
            asked: !host_initiated,
            largest: 3000,
            ..Guest::default()
        };
        Self {
            rig,
            guest,
            host_wrote: Vec::new(),
            host_start: start,
            next: 0,
        }
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len)
            .map(|_| {
                self.next = self.next.wrapping_mul(31).wrapping_add(7);
                self.next
            })
            .collect()
    }

    fn run(&mut self, op: &Op) {
        match *op {
            Op::GuestSends(len) => self.guest_sends(len),
            Op::GuestReads(bytes) => {
                let unread = self.guest.got.len() - self.guest.read;
                let read = unread.min(bytes as usize);
                self.guest.read += read;
                self.rig.guest.fwd_cnt = self.rig.guest.fwd_cnt.wrapping_add(read as u32);
                self.guest.unsaid |= read > 0;
                self.say(Body::CreditUpdate);
            }
            Op::GuestAsks => self.say(Body::CreditRequest),
            Op::GuestShuts(bits) => {
                let flags = ShutdownFlags::from_bits(bits);
                if self.may_speak() {
                    self.guest.flags = self.guest.flags | flags;
                    self.say(Body::Shutdown(flags));
                }
            }
            Op::GuestResets => {
                if self.may_speak() {
                    self.say(Body::Reset);
                    self.guest.reset = true;
                }
            }
            Op::GuestResizes(bytes) => {
                self.rig.guest.buf_alloc = bytes;
                self.guest.largest = self.guest.largest.max(bytes);
                self.guest.unsaid = true;
                self.say(Body::CreditUpdate);
            }
            Op::HostWrites(len) => {
                let host = &self.rig.host;
                let open = host.then == End::NotYet && !host.is_closed();
                if open && !host.did(HostAction::ShutdownRead) {
                    let bytes = self.bytes(len);
                    self.host_wrote.extend_from_slice(&bytes);
                    self.rig.host_sends(&bytes);
                }
            }
            Op::HostEnds => self.host_ends(End::Ended),
            Op::HostBreaks => self.host_ends(End::Broken),
            Op::HostCloses => {
                if self.rig.host.then == End::NotYet && !self.rig.host.is_closed() {
                    self.rig.host_closes();
                }
            }
            Op::HostReads(bytes) => {
                self.rig.host.space = self.rig.host.space.saturating_add(bytes);
                self.rig.flush();
            }
            Op::HostConnects => self.rig.conn.on_host_connected(self.rig.now),
            Op::HostRefuses => self.rig.refuse(),
            Op::DeviceStops => self.shut_down(),
            Op::Flush => self.rig.flush(),
            Op::Transmit(room) => {
                self.transmit(room);
            }
            Op::Passes(ms) => self.rig.pass(Duration::from_millis(ms)),
        }
    }

    fn host_ends(&mut self, end: End) {
        if self.rig.host.then == End::NotYet && !self.rig.host.is_closed() {
            self.rig.host_ends(end);
        }
    }

    /// A guest with a record of the connection is told in one packet; any other is not told.
    fn shut_down(&mut self) {
        let knows = (self.guest.asked || self.guest.connected) && !self.guest.reset;
        self.rig.shut_down();
        assert!(self.rig.host.is_closed());
        assert_eq!(self.rig.conn.deadline(), None);
        assert_eq!(self.transmit(0), knows);
        assert!(self.rig.conn.is_closed());
    }

    fn may_speak(&self) -> bool {
        self.guest.connected && !self.guest.reset
    }

    fn say(&mut self, body: Body) {
        if self.may_speak() {
            self.rig.guest(body);
            self.guest.unsaid = false;
        }
    }

    fn guest_sends(&mut self, len: usize) {
        let Some(credit) = self.guest.credit else {
            return;
        };
        if !self.may_speak() || self.guest.flags.contains(ShutdownFlags::SEND) {
            return;
        }
        let sent = self.host_start.wrapping_add(self.guest.sent.len() as u32);
        let in_flight = sent.wrapping_sub(credit.fwd_cnt);
        let free = credit.buf_alloc.checked_sub(in_flight).expect("overrun");
        let bytes = self.bytes(len.min(free as usize));
        self.guest.sent.extend_from_slice(&bytes);
        self.rig.data(&bytes);
        self.guest.unsaid = false;
    }

    /// Gives the guest a packet in a buffer with this room. Returns whether there was one.
    fn transmit(&mut self, room: usize) -> bool {
        let Some((packet, bytes)) = self.rig.transmit(room) else {
            return false;
        };
        self.check(&packet, &bytes, room);
        self.guest.got.extend(bytes);
        match packet.body {
            Body::Response => self.guest.connected = true,
            Body::Request => {
                self.guest.connected = true;
                self.guest.credit = Some(packet.credit);
                self.say(Body::Response);
            }
            Body::CreditRequest => self.say(Body::CreditUpdate),
            Body::Reset => {
                self.guest.reset = true;
                self.guest.resets_got += 1;
            }
            // A Linux guest answers a complete shutdown when it has read everything.
            Body::Shutdown(_) | Body::Data(_) | Body::CreditUpdate => {}
        }
        self.guest.credit = Some(packet.credit);
        true
    }

    /// Checks what must hold for any packet.
    fn check(&self, packet: &Packet, bytes: &[u8], room: usize) {
        assert!(!self.guest.reset, "{packet:?} after an RST");
        assert_eq!(packet.credit.buf_alloc, WINDOW);
        assert!(bytes.len() <= room);
        let got = self.guest.got.len();
        if !self.guest.connected {
            let first = matches!(packet.body, Body::Request | Body::Response | Body::Reset);
            assert!(first, "{packet:?} before the connection is established");
        }
        if packet.body == RW {
            assert!(!bytes.is_empty(), "an empty packet");
            let in_flight = got + bytes.len() - self.guest.read;
            assert!(in_flight <= self.guest.largest as usize, "no credit");
            assert!(!self.guest.flags.contains(ShutdownFlags::RECEIVE));
            assert_eq!(bytes, &self.host_wrote[got..got + bytes.len()]);
        }
        let forwarded = packet.credit.fwd_cnt.wrapping_sub(self.host_start) as usize;
        assert!(forwarded <= self.guest.sent.len(), "more than was sent");
    }

    /// Checks what must hold after every step.
    fn check_rest(&self) {
        let host = &self.rig.host;
        let got = host.got.strip_prefix(&b"OK 1073741824\n"[..]);
        let got = got.unwrap_or(&host.got);
        assert!(
            self.guest.sent.starts_with(got) || b"OK 1073741824\n".starts_with(got),
            "the host got something else"
        );
        assert!(self.rig.conn.memory() <= WINDOW as usize + 32);
        if host.did(HostAction::ShutdownWrite) && !host.deaf {
            assert_eq!(
                got.len(),
                self.guest.sent.len(),
                "the end was reported before the last byte"
            );
        }
        let conn = &self.rig.conn;
        if host.is_closed() {
            assert_eq!(conn.interest(), Interest::default());
            assert_eq!(conn.memory(), 0);
        }
        if conn.is_closed() {
            assert!(host.is_closed());
            assert_eq!(conn.deadline(), None);
            assert!(!conn.wants_transmit());
        }
        assert_eq!(conn.waiting() > 0, conn.interest().write);
    }

    /// Both sides read everything.
    fn settle(&mut self) {
        self.rig.host.space = usize::MAX;
        loop {
            self.rig.flush();
            let mut progress = false;
            while self.transmit(4052) {
                progress = true;
            }
            if self.guest.got.len() > self.guest.read || self.guest.unsaid && self.may_speak() {
                self.rig.guest.buf_alloc = self.rig.guest.buf_alloc.max(100);
                self.run(&Op::GuestReads(u32::MAX));
                progress = true;
            }
            if !progress {
                return;
            }
        }
    }

    /// Both sides read and close, and time passes. Nothing may be left.
    fn finish(&mut self) {
        self.rig.guest.buf_alloc = self.rig.guest.buf_alloc.max(100);
        self.guest.largest = self.guest.largest.max(self.rig.guest.buf_alloc);
        self.guest.unsaid = true;
        self.settle();
        self.check_rest();
        self.check_delivery();
        if self.may_speak() && !self.rig.conn.is_closed() {
            self.guest.flags = ShutdownFlags::BOTH;
            self.say(BOTH);
        }
        for _ in 0..100 {
            self.settle();
            self.check_rest();
            if self.rig.conn.is_closed() {
                break;
            }
            self.rig.pass_until_deadline();
        }
        assert!(self.rig.conn.is_closed(), "{:?}", self.rig.conn.phase());
        assert_eq!(self.rig.conn.memory(), 0);
        assert!(self.guest.resets_got <= 1);
    }

    /// While both sides read, everything that was sent has arrived, unless the connection was
    /// broken.
    fn check_delivery(&self) {
        let host = &self.rig.host;
        let conn = &self.rig.conn;
        let refused = self.guest.flags.contains(ShutdownFlags::RECEIVE);
        let whole = matches!(conn.ending(), None | Some(Ending::Clean));
        if !whole || conn.phase() == Phase::Accepting || conn.phase() == Phase::Responding {
            return;
        }
        if !host.deaf && self.guest.connected {
            let got = host.got.strip_prefix(&b"OK 1073741824\n"[..]);
            let got = got.unwrap_or(&host.got);
            assert!(got == self.guest.sent, "lost to the host");
        }
        if !refused && !self.guest.reset {
            assert!(self.guest.got == self.host_wrote, "lost to the guest");
        }
    }
}

proptest! {
    #![proptest_config(cases(2000))]

    #[test]
    fn a_connection_keeps_its_promises(
        host_initiated: bool,
        start in prop_oneof![Just(0_u32), (u32::MAX - 9000)..u32::MAX],
        guest_start in prop_oneof![Just(0_u32), (u32::MAX - 9000)..u32::MAX],
        ops in proptest::collection::vec(op(), 1..120),
    ) {
        let mut world = World::new(host_initiated, start, guest_start);
        for op in &ops {
            world.run(op);
            world.check_rest();
        }
        world.finish();
    }

    /// A guest that sends anything at any time causes no panic and no unbounded memory, receives at
    /// most one RST, and nothing after it.
    #[test]
    fn no_guest_breaks_a_connection(
        host_initiated: bool,
        seqpacket: bool,
        ops in proptest::collection::vec(
            (0_u8..10, 0_usize..6000, any::<u32>(), 0_u32..4, any::<u32>()),
            1..60,
        ),
    ) {
        let small = limits(|limits| {
            limits.max_message(2000).max_empty_messages(5).buf_alloc(WINDOW)
        });
        let mut rig = match (host_initiated, seqpacket) {
            (true, _) => Rig::requesting(small, Confirmation::Line),
            (false, false) => Rig::accepting(small),
            (false, true) => Rig::accepting_from(small, SocketType::SeqPacket, GUEST),
        };
        rig.host.space = 2000;
        rig.conn.on_host_connected(rig.now);
        let mut reset = false;
        for (kind, len, fwd_cnt, bits, buf_alloc) in ops {
            // Half of the packets do not contain false credit.
            if bits & 1 == 0 {
                rig.guest = Credit { buf_alloc, fwd_cnt };
            }
            let body = match kind {
                0 => Body::Request,
                1 => Body::Response,
                2 => Body::Reset,
                3 => Body::Shutdown(ShutdownFlags::from_bits(bits)),
                4 | 5 => Body::Data(MessageFlags::from_bits(bits)),
                6 => Body::CreditUpdate,
                7 => Body::CreditRequest,
                8 => {
                    rig.host_sends(&[1; 100]);
                    continue;
                }
                _ => {
                    rig.host_takes(len);
                    continue;
                }
            };
            let bytes = vec![0; if kind < 6 && kind > 3 { len } else { 0 }];
            let _ = rig.try_guest(body, &bytes);
            // On a seqpacket socket the rig's stream reads would need boundaries: control only.
            let room = if seqpacket { 0 } else { len };
            if let Some((packet, _)) = rig.transmit(room) {
                prop_assert!(!reset, "{:?} after an RST", packet);
                reset |= packet.body == Body::Reset;
            }
            prop_assert!(rig.conn.memory() <= WINDOW as usize + 32);
            if rig.host.is_closed() {
                prop_assert_eq!(rig.conn.memory(), 0);
            }
        }
    }

    /// Messages of any size, in pieces of any size, to a stream that accepts them at any time.
    #[test]
    fn t111_messages_arrive_whole_and_in_order(
        messages in proptest::collection::vec((0_usize..1500, any::<bool>()), 1..30),
        pieces in proptest::collection::vec(1_usize..700, 1..20),
        space in proptest::collection::vec(0_usize..2500, 1..20),
    ) {
        let config = limits(|limits| limits.buf_alloc(WINDOW).max_message(1500));
        let mut rig = Rig::seqpacket(config);
        rig.guest.buf_alloc = 1000;
        rig.host.space = 0;
        let (mut pieces, mut space) = (pieces.iter().cycle(), space.iter().cycle());
        let (mut sent, mut known) = (0_u32, 0_u32);
        let mut expected = Vec::new();
        for (index, (len, record)) in messages.into_iter().enumerate() {
            let end = if record {
                MessageFlags::END_OF_RECORD
            } else {
                MessageFlags::END_OF_MESSAGE
            };
            let message = vec![index as u8; len];
            expected.push((message.clone(), end));
            let mut rest = &message[..];
            loop {
                let credit = (WINDOW - sent.wrapping_sub(known)) as usize;
                let piece = rest.len().min(credit).min(*pieces.next().unwrap());
                let last = piece == rest.len();
                if piece > 0 || last {
                    let (now, later) = rest.split_at(piece);
                    rig.piece(now, if last { end } else { MessageFlags::NONE });
                    sent += piece as u32;
                    rest = later;
                }
                if last {
                    break;
                }
                rig.host.space = *space.next().unwrap() + 1500;
                rig.flush();
                while let Some((packet, _)) = rig.transmit(0) {
                    known = packet.credit.fwd_cnt;
                }
            }
        }
        rig.host_takes(usize::MAX);
        prop_assert_eq!(&rig.host.messages, &expected);
        prop_assert_eq!(rig.conn.waiting(), 0);
    }
}
