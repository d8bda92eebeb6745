// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Measures the device's time for a packet in both directions with an in-process stream: copied
//! directly, and through a buffer as for an unregistered type of stream.
//!
//! `cargo run --release -p vsock-virtio --example cost`

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    reason = "a measurement fails by panicking, and prints its figures"
)]

#[expect(dead_code, reason = "the tests use the rest")]
#[path = "../tests/suite/rig.rs"]
mod rig;

use std::hint::black_box;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

use vsock_backend_api::VsockStream;
use vsock_driver::memory;
use vsock_inner::{VsockInnerBackend, VsockInnerStream};
use vsock_muxer::{Readiness, Token};
use vsock_proto::{Header, Op};
use vsock_virtio::{F_EVENT_IDX, F_VERSION_1, VsockDevice};

use rig::{LEN, Rig, muxer, packet};

const SIZE: u16 = 128;
const WRITE: usize = 60 * 1024;

struct Guest {
    rig: Rig,
    token: Option<Token>,
    forwarded: u32,
    spent: Duration,
}

impl Guest {
    fn new(direct: bool) -> (Self, VsockInnerStream) {
        let backend = VsockInnerBackend::new().unwrap();
        let listener = backend.listen(80).unwrap();
        let mut builder = VsockDevice::builder(muxer(backend));
        if direct {
            builder = builder.direct::<VsockInnerStream>(0);
        }
        let memory = memory(&[(0, LEN), (0x1_0000_0000, 0x10_0000)]);
        let mut rig = Rig::over(builder.build(), SIZE, memory.clone(), memory);
        rig.device.ack_features(F_VERSION_1 | F_EVENT_IDX).unwrap();
        rig.start();
        rig.apply_actions();
        let backends = rig.watched.clone();
        rig.post(SIZE);
        let mut guest = Self {
            rig,
            token: None,
            forwarded: 0,
            spent: Duration::ZERO,
        };
        guest.send(Op::Request, &[]);
        guest.process();
        guest.rig.apply_actions();
        let mut watched = guest.rig.watched.keys().copied();
        guest.token = watched.find(|token| !backends.contains_key(token));
        guest.recycle();
        let mut host = listener.accept().unwrap();
        host.set_nonblocking(true).unwrap();
        (guest, host)
    }

    fn send(&mut self, op: Op, payload: &[u8]) {
        let header = Header {
            buf_alloc: 1 << 20,
            fwd_cnt: self.forwarded,
            ..packet(op, 1024, 80)
        };
        self.rig.send(header, payload);
    }

    fn process(&mut self) {
        let begin = Instant::now();
        if let Some(token) = self.token {
            let ready = Readiness {
                readable: true,
                ..Readiness::default()
            };
            self.rig.device.on_event(self.rig.now, token, ready);
        }
        let outcome = self.rig.process();
        while self.token.is_some() && self.rig.device.next_action().is_some() {}
        self.spent += begin.elapsed();
        let _ = black_box(outcome);
        self.rig.tx.used(&self.rig.memory);
    }

    /// Offers used buffers again; returns their number.
    fn recycle(&mut self) -> u32 {
        let used = self.rig.rx.used(&self.rig.memory);
        for &(head, len) in &used {
            self.forwarded = self.forwarded.wrapping_add(len - 44);
            self.rig.rx.offer(&self.rig.memory, head as u16);
        }
        used.len() as u32
    }
}

fn to_guest(direct: bool, rounds: u32) -> (u32, Duration) {
    let (mut guest, mut host) = Guest::new(direct);
    let bytes = vec![7; WRITE];
    let mut packets = 0;
    guest.spent = Duration::ZERO;
    for _ in 0..rounds {
        let written = host.write(&bytes).unwrap();
        assert_eq!(written, WRITE);
        guest.process();
        packets += guest.recycle();
        let spent = guest.spent;
        guest.send(Op::CreditUpdate, &[]);
        guest.process();
        guest.spent = spent;
    }
    (packets, guest.spent)
}

fn to_host(direct: bool, rounds: u32) -> (u32, Duration) {
    let (mut guest, mut host) = Guest::new(direct);
    let (bytes, mut buffer) = (vec![7; WRITE], vec![0; 128 * 1024]);
    guest.spent = Duration::ZERO;
    for _ in 0..rounds {
        guest.send(Op::ReadWrite, &bytes);
        guest.process();
        assert_eq!(host.read(&mut buffer).unwrap(), WRITE);
        guest.recycle();
    }
    (rounds, guest.spent)
}

fn main() {
    let rounds = 20_000;
    for (name, direct) in [("directly", true), ("by a buffer", false)] {
        let (packets, spent) = to_guest(direct, rounds);
        let each = spent.as_nanos() / u128::from(packets);
        println!("host to guest, {name}: {each} ns for each buffer of 4 KiB");
        let (packets, spent) = to_host(direct, rounds);
        let each = spent.as_nanos() / u128::from(packets);
        println!("guest to host, {name}: {each} ns for each packet of 60 KiB");
    }
}
