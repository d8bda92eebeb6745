// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a packet costs the device, both ways, with a stream inside the process: copied directly, and
//! through a buffer as for a type of streams that is not registered.
//!
//! `cargo run --release -p vsock-virtio --example cost`

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    reason = "a measurement fails by panicking, and prints its figures"
)]

use std::hint::black_box;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

use virtio_queue::Queue;
use vsock_backend_api::VsockStream;
use vsock_driver::{Descriptor, DriverQueue, Memory, filled, memory};
use vsock_inner::{VsockInnerBackend, VsockInnerStream};
use vsock_muxer::{Action, Muxer, Readiness, Token};
use vsock_proto::{Config, GuestCid, Header, Op, Tick};
use vsock_virtio::{F_EVENT_IDX, F_VERSION_1, Queues, VsockDevice};

const SIZE: u16 = 128;
const BUFFER: u32 = 4096;
const RX_DATA: u64 = 0x20_0000;
const TX_DATA: u64 = 0x10_0000;
const WRITE: usize = 60 * 1024;

struct Guest {
    memory: Memory,
    rings: [DriverQueue; 2],
    queues: [Queue; 2],
    device: VsockDevice<Memory>,
    token: Option<Token>,
    forwarded: u32,
    spent: Duration,
}

impl Guest {
    fn new(direct: bool) -> (Self, VsockInnerStream) {
        let cid = GuestCid::try_from(3).unwrap();
        let mut muxer = Muxer::new(cid, Config::builder().build().unwrap());
        let backend = VsockInnerBackend::new().unwrap();
        let listener = backend.listen(80).unwrap();
        muxer.add_backend(Box::new(backend)).unwrap();
        let mut builder = VsockDevice::builder(muxer);
        if direct {
            builder = builder.direct::<VsockInnerStream>(0);
        }
        let rings = [0x1000, 0x4000].map(|base| DriverQueue::new(base, SIZE));
        let mut guest = Self {
            memory: memory(&[(0, 0xc0_0000), (0x1_0000_0000, 0x10_0000)]),
            queues: rings.each_ref().map(DriverQueue::queue),
            rings,
            device: builder.build(),
            token: None,
            forwarded: 0,
            spent: Duration::ZERO,
        };
        guest.start();
        let mut host = listener.accept().unwrap();
        host.set_nonblocking(true).unwrap();
        (guest, host)
    }

    fn start(&mut self) {
        self.device.ack_features(F_VERSION_1 | F_EVENT_IDX).unwrap();
        let [rx, tx] = &mut self.queues;
        let mut queues = Queues {
            rx,
            tx,
            event: None,
        };
        self.device
            .activate(Tick::ZERO, &self.memory, &mut queues)
            .unwrap();
        for head in 0..SIZE {
            let addr = RX_DATA + u64::from(head) * u64::from(BUFFER);
            self.rings[0].describe(&self.memory, head, Descriptor::writable(addr, BUFFER));
            self.rings[0].offer(&self.memory, head);
        }
        self.send(Op::Request, 0);
        self.process();
        while let Some(action) = self.device.next_action() {
            if let Action::Watch { token, .. } = action {
                self.token = Some(token);
            }
        }
        self.recycle();
    }

    fn send(&mut self, op: Op, len: u32) {
        let header = Header {
            src_cid: 3,
            dst_cid: 2,
            src_port: 1024,
            dst_port: 80,
            len,
            socket_type: 1,
            op: op.into(),
            flags: 0,
            buf_alloc: 1 << 20,
            fwd_cnt: self.forwarded,
        };
        filled(&self.memory, TX_DATA, &header.encode());
        let ring = &mut self.rings[1];
        let pieces = [Descriptor::readable(TX_DATA, len + 44)];
        ring.chain(&self.memory, 0, &pieces);
        ring.offer(&self.memory, 0);
    }

    fn process(&mut self) {
        let [rx, tx] = &mut self.queues;
        let mut queues = Queues {
            rx,
            tx,
            event: None,
        };
        let begin = Instant::now();
        if let Some(token) = self.token {
            let ready = Readiness {
                readable: true,
                ..Readiness::default()
            };
            self.device.on_event(Tick::ZERO, token, ready);
        }
        let outcome = self.device.process(Tick::ZERO, &self.memory, &mut queues);
        while self.token.is_some() && self.device.next_action().is_some() {}
        self.spent += begin.elapsed();
        let _ = black_box(outcome.unwrap());
        self.rings[1].used(&self.memory);
    }

    /// Offers used buffers again; returns how many there were.
    fn recycle(&mut self) -> u32 {
        let used = self.rings[0].used(&self.memory);
        for &(head, len) in &used {
            self.forwarded = self.forwarded.wrapping_add(len - 44);
            self.rings[0].offer(&self.memory, head as u16);
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
        guest.send(Op::CreditUpdate, 0);
        guest.process();
        guest.spent = spent;
    }
    (packets, guest.spent)
}

fn to_host(direct: bool, rounds: u32) -> (u32, Duration) {
    let (mut guest, mut host) = Guest::new(direct);
    let mut buffer = vec![0; 128 * 1024];
    guest.spent = Duration::ZERO;
    for _ in 0..rounds {
        guest.send(Op::ReadWrite, WRITE as u32);
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
