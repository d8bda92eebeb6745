// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Whatever a guest writes into its memory, its descriptor tables and its rings, the device goes on, or
//! says that it cannot until it is reset.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

use virtio_queue::QueueT;
use vsock_backend_api::VsockStream;
use vsock_driver::{Descriptor, DriverRing, Memory, filled, memory};
use vsock_inner::{VsockInnerBackend, VsockInnerListener, VsockInnerStream};
use vsock_muxer::{Action, Muxer, Readiness, Token};
use vsock_proto::{Config, GuestCid, Header, Op, Tick};
use vsock_virtio::{F_EVENT_IDX, F_VERSION_1, Outcome, Queues, VsockDevice};

use crate::bytes::Bytes;

const SIZES: [u16; 4] = [16, 1, 2, 64];
/// Two regions without a gap, and one behind a gap.
const REGIONS: [(u64, usize); 3] = [(0, 0x1_0000), (0x1_0000, 0x2_0000), (0x8_0000, 0x1_0000)];
const RINGS: [u64; 3] = [0x1000, 0x2000, 0x3000];
/// Where descriptors mostly point: across the seam of two regions, and up to the gap.
const PLACES: [u64; 4] = [0x4000, 0xffe0, 0x2_fff0, 0x8_0000];
/// Where else a part of a ring may lie: on other rings, on payload, across a seam, up to the gap.
const ODD_PLACES: [u32; 8] = [
    0x1000, 0x1100, 0x2000, 0x2124, 0x4000, 0xffc0, 0x2_ffc0, 0x8_0000,
];
/// The port that a host component listens on.
const SERVED: u32 = 1;
/// How much time a guest lets pass: none, some of that for which the device may keep a notification
/// back, all of it, and more than a connection waits for anything.
const PAUSES: [Duration; 4] = [
    Duration::ZERO,
    Duration::from_micros(300),
    Duration::from_millis(2),
    Duration::from_secs(10),
];
/// No call takes as long, on whatever machine.
const TOO_LONG: Duration = Duration::from_secs(20);

/// Plays the bytes as what a guest does.
pub fn fuzz(data: &[u8]) {
    let mut data = Bytes(data);
    let first = data.byte();
    let Some(mut rig) = Rig::new(first & 4 == 0) else {
        return;
    };
    let features = F_VERSION_1 | if first & 1 == 0 { 0 } else { F_EVENT_IDX };
    rig.device.ack_features(features).expect("they are offered");
    for _ in 0..3 {
        rig.pass(Duration::from_nanos(1));
        let size = SIZES[usize::from(data.byte()) % SIZES.len()];
        let mut rings = RINGS.map(|base| DriverRing::new(base, size));
        let [mut rx, mut tx, mut event] = rings.each_ref().map(DriverRing::queue);
        displace(&mut rx, data.byte());
        displace(&mut tx, data.byte());
        let mut queues = Queues {
            rx: &mut rx,
            tx: &mut tx,
            event: (first & 2 == 0).then_some(&mut event),
        };
        let active = rig.device.activate(rig.now, &rig.memory, &mut queues);
        if active.is_err() {
            continue; // a ring that does not lie in memory
        }
        while !data.is_empty() {
            if let Some(pause) = step(&mut data, &mut rig, &mut rings) {
                rig.pass(pause);
                if rig.turn(&mut queues).is_none() {
                    break;
                }
            }
        }
        rig.device.reset(rig.now);
    }
    rig.serves_again();
}

/// A part of a queue somewhere else than where the driver thinks it is.
fn displace(queue: &mut virtio_queue::Queue, odd: u8) {
    let place = ODD_PLACES.get(usize::from(odd >> 4)).copied();
    match odd & 0xf {
        1 => queue.set_desc_table_address(place, None),
        2 => queue.set_avail_ring_address(place, None),
        3 => queue.set_used_ring_address(place, None),
        _ => {}
    }
}

/// The device, a host component, and what the event loop knows.
struct Rig {
    device: VsockDevice<Memory>,
    memory: Memory,
    now: Tick,
    listener: VsockInnerListener,
    hosts: Vec<VsockInnerStream>,
    watched: HashMap<Token, (bool, bool)>,
}

impl Rig {
    /// `None` for want of descriptors.
    fn new(direct: bool) -> Option<Self> {
        let backend = VsockInnerBackend::new().ok()?;
        let connector = backend.get_connector();
        let listener = connector.listen(SERVED).ok()?;
        listener.set_nonblocking(true).ok()?;
        let config = Config::builder().max_resets(8).build().ok()?;
        let mut muxer = Muxer::new(GuestCid::try_from(3).ok()?, config);
        muxer.add_backend(Box::new(backend)).ok()?;
        let mut builder = VsockDevice::builder(muxer);
        if direct {
            builder = builder.direct::<VsockInnerStream>(0);
        }
        Some(Self {
            device: builder.build(),
            memory: memory(&REGIONS),
            now: Tick::ZERO,
            listener,
            hosts: Vec::new(),
            watched: HashMap::new(),
        })
    }

    /// Lets time pass, and the timer fire if it has come.
    fn pass(&mut self, pause: Duration) {
        self.now = self.now.saturating_add(pause);
        if self.device.deadline().is_some_and(|due| due <= self.now) {
            self.device.on_timeout(self.now);
        }
    }

    /// One turn of the event loop; returns of what the guest is notified, if the device goes on.
    fn turn(&mut self, queues: &mut Queues<'_>) -> Option<Outcome> {
        for (&token, &(readable, writable)) in &self.watched {
            let ready = Readiness {
                readable,
                writable,
                hangup: false,
            };
            self.device.on_event(self.now, token, ready);
        }
        let start = Instant::now();
        let outcome = self.device.process(self.now, &self.memory, queues);
        assert!(start.elapsed() < TOO_LONG, "a call without an end");
        self.carry_out();
        self.host();
        assert_eq!(self.device.is_active(), outcome.is_ok());
        let due = self.device.deadline();
        assert!(due.is_none_or(|due| due > self.now), "a timer that spins");
        outcome.ok()
    }

    fn carry_out(&mut self) {
        while let Some(action) = self.device.next_action() {
            match action {
                Action::Watch {
                    token, read, write, ..
                } => {
                    self.watched.insert(token, (read, write));
                }
                Action::Unwatch { token, .. } | Action::Close { token, .. } => {
                    self.watched.remove(&token);
                }
            }
        }
    }

    /// The component answers whoever comes with some bytes, and takes what it gets.
    fn host(&mut self) {
        while let Ok(mut stream) = self.listener.accept() {
            let ready = stream.set_nonblocking(true);
            if ready.and_then(|()| stream.write(&[0xa5; 10_000])).is_ok() {
                self.hosts.push(stream);
            }
        }
        let mut buf = [0; 4096];
        for stream in &mut self.hosts {
            let _ = stream.read(&mut buf);
        }
    }

    /// After all of it, a driver that keeps to the rules is served, in memory that is clean.
    fn serves_again(&mut self) {
        self.memory = memory(&REGIONS);
        self.carry_out();
        let mut rings = RINGS.map(|base| DriverRing::new(base, SIZES[0]));
        let [mut rx, mut tx, mut event] = rings.each_ref().map(DriverRing::queue);
        let mut queues = Queues {
            rx: &mut rx,
            tx: &mut tx,
            event: Some(&mut event),
        };
        let active = self.device.activate(self.now, &self.memory, &mut queues);
        active.expect("it was reset, and the rings are in memory");
        let [rx, tx, _] = &mut rings;
        let header = Header {
            src_cid: 3,
            dst_cid: 2,
            src_port: 7,
            dst_port: SERVED,
            socket_type: 1,
            op: Op::Request.into(),
            buf_alloc: 65_536,
            ..Header::default()
        };
        filled(&self.memory, PLACES[0], &header.encode());
        tx.chain(&self.memory, 0, &[Descriptor::readable(PLACES[0], 44)]);
        tx.offer(&self.memory, 0);
        for (head, addr) in [(0, 0x1_0000), (1, 0x1_2000)] {
            rx.chain(&self.memory, head, &[Descriptor::writable(addr, 4096)]);
            rx.offer(&self.memory, head);
        }
        let (mut rx_notified, mut tx_notified) = (false, false);
        for _ in 0..4 {
            let outcome = self.turn(&mut queues).expect("nothing is wrong any more");
            rx_notified |= outcome.notify_rx;
            tx_notified |= outcome.notify_tx;
            self.pass(PAUSES[2]);
        }
        assert!(rx_notified && tx_notified, "sooner or later");
        let [rx, tx, _] = &mut rings;
        assert_eq!(tx.used(&self.memory), [(0, 0)]);
        let got: Vec<_> = rx.used(&self.memory);
        assert_eq!(got, [(0, 44), (1, 4096)], "an answer, and bytes");
    }
}

/// One thing that a guest does; returns how long it waits then before it kicks the device, if it does.
fn step(data: &mut Bytes<'_>, rig: &mut Rig, rings: &mut [DriverRing; 3]) -> Option<Duration> {
    let memory = &rig.memory;
    let what = data.byte();
    let ring = &mut rings[usize::from(what >> 4) % 3];
    match what & 0xf {
        0..=4 => ring.describe(memory, data.short() % ring.size(), descriptor(data)),
        5..=8 => ring.offer(memory, u16::from(data.byte()) % (ring.size() + 1)),
        9 => ring.set_available(memory, data.short()),
        10 => ring.set_used_event(memory, data.short()),
        11 => filled(memory, PLACES[usize::from(data.byte()) % 2], &packet(data)),
        12 => filled(
            memory,
            0x1000 + u64::from(data.short()) % 0x3000,
            &[data.byte()],
        ),
        13 => rig.device.transport_reset(rig.now),
        14 => return Some(Duration::ZERO),
        _ => return Some(PAUSES[usize::from(what >> 4) % PAUSES.len()]),
    }
    None
}

fn descriptor(data: &mut Bytes<'_>) -> Descriptor {
    let place = usize::from(data.byte());
    let addr = match PLACES.get(place % 8) {
        Some(place) => place + u64::from(data.byte()),
        None => u64::from(data.number()) << (place % 34),
    };
    Descriptor {
        addr,
        len: data.number(),
        flags: u16::from(data.byte()),
        next: u16::from(data.byte()) % 17,
    }
}

/// A header that is mostly right.
fn packet(data: &mut Bytes<'_>) -> [u8; Header::LEN] {
    let header = Header {
        src_cid: 3,
        dst_cid: 2,
        src_port: u32::from(data.byte() % 4),
        dst_port: u32::from(data.byte() % 4),
        len: data.number(),
        socket_type: 1,
        op: u16::from(data.byte()) % 9,
        flags: data.number(),
        buf_alloc: data.number(),
        fwd_cnt: data.number(),
    };
    header.encode()
}
