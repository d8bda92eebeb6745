// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Applies any sequence of events to one connection.

use std::sync::Arc;
use std::time::Duration;

use vsock_proto::{
    Body, Config, Confirmation, ConnKey, Connection, Credit, HostAction, Op, Packet, Port,
    Progress, SlicePayload, SocketType, Tick, Transmit,
};

use crate::bytes::Bytes;

const BUF_ALLOC: u32 = 1000;

struct Life {
    conn: Connection,
    now: Tick,
    socket_type: SocketType,
    /// Whether an RST was sent, and whether the connection was closed.
    reset: bool,
    closed: bool,
}

fn config() -> Arc<Config> {
    let config = Config::builder().buf_alloc(BUF_ALLOC).max_message(500);
    Arc::new(config.build().unwrap_or_default())
}

fn packet(bytes: &mut Bytes<'_>, body: Body, socket_type: SocketType) -> Packet {
    Packet {
        key: ConnKey::new(Port::new(1 << 30), Port::new(52)),
        socket_type,
        body,
        len: 0,
        credit: Credit {
            buf_alloc: bytes.number(),
            fwd_cnt: bytes.number(),
        },
    }
}

/// The result of reading from or writing to a stream.
fn progress(byte: u8, len: usize) -> Progress {
    match byte % 8 {
        0 => Progress::Pending,
        1 => Progress::Closed,
        2 => Progress::Failed,
        3 => Progress::Done(len / 2),
        _ => Progress::Done(len),
    }
}

/// The first byte selects how the connection begins, the others what happens to it.
pub fn fuzz(data: &[u8]) {
    let mut bytes = Bytes(data);
    let first = bytes.byte();
    let socket_type = if first & 1 == 0 {
        SocketType::Stream
    } else {
        SocketType::SeqPacket
    };
    let config = config();
    let now = Tick::ZERO;
    let key = ConnKey::new(Port::new(1 << 30), Port::new(52));
    let conn = match first & 6 {
        0 => Connection::accept(
            &config,
            &packet(&mut bytes, Body::Request, socket_type),
            now,
        ),
        2 => Connection::connect(&config, key, socket_type, Confirmation::Line, now),
        _ => Connection::connect(&config, key, socket_type, Confirmation::OutOfBand, now),
    };
    let mut life = Life {
        conn: conn.with_fwd_cnt(bytes.number()),
        now,
        socket_type,
        reset: false,
        closed: false,
    };
    while !bytes.is_empty() {
        life.step(&mut bytes);
        life.check();
    }
}

impl Life {
    fn step(&mut self, bytes: &mut Bytes<'_>) {
        match bytes.byte() % 8 {
            0 => self.conn.on_host_connected(self.now),
            1 => self.conn.on_host_readable(self.now),
            2 => self.conn.on_host_hangup(self.now),
            3 => {
                let time = Duration::from_millis(u64::from(bytes.short()));
                self.now = self.now.saturating_add(time);
                self.conn.on_timeout(self.now);
            }
            4 => {
                let how = bytes.byte();
                self.conn
                    .flush(self.now, |chunk| progress(how, chunk.len()));
            }
            5 => self.transmit(bytes),
            _ => self.receive(bytes),
        }
    }

    fn receive(&mut self, bytes: &mut Bytes<'_>) {
        let op = Op::try_from(u16::from(bytes.byte() % 7 + 1)).unwrap_or(Op::Reset);
        let flags = u32::from(bytes.byte());
        let mut packet = packet(
            bytes,
            Body::new(op, flags, self.socket_type),
            self.socket_type,
        );
        let payload = vec![0; usize::from(bytes.short() % 1200)];
        if op == Op::ReadWrite {
            packet.len = u32::try_from(payload.len()).unwrap_or(0);
        }
        let how = bytes.byte();
        let payload = &payload[..packet.len as usize];
        let mut payload = SlicePayload::new(payload, |rest, _| progress(how, rest.len()));
        let _violation = self.conn.on_packet(self.now, &packet, &mut payload);
    }

    fn transmit(&mut self, bytes: &mut Bytes<'_>) {
        let room = usize::from(bytes.short());
        match self.conn.poll_transmit(self.now, room) {
            None => {}
            Some(Transmit::Packet(packet)) => {
                assert!(!self.reset, "no packet may follow an RST");
                self.reset = packet.body == Body::Reset;
            }
            Some(Transmit::Data(mut grant)) => {
                assert!(!self.reset, "no packet may follow an RST");
                assert!(room > 0 && grant.bytes() > 0 && grant.packets() > 0);
                let len = room.min(grant.packet_bytes());
                match progress(bytes.byte(), len) {
                    Progress::Done(0) => {}
                    Progress::Done(len) => {
                        let packet = grant.sent(len);
                        assert_eq!(packet.len as usize, len);
                    }
                    other => grant.finish(other),
                }
            }
        }
    }

    fn check(&mut self) {
        let actions: Vec<_> = self.conn.take_actions().collect();
        assert!(
            !self.closed || actions.is_empty(),
            "no action may follow a close"
        );
        self.closed |= actions.contains(&HostAction::Close);
        assert!(self.conn.waiting() <= BUF_ALLOC as usize + 64);
        assert!(self.conn.memory() <= 8 * 1024);
        let interest = self.conn.interest();
        assert!(!self.closed || !(interest.read || interest.write));
        assert!(!self.conn.is_closed() || !self.conn.wants_transmit());
    }
}
