// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The number of packets in flight is limited, and the limit blocks no connection permanently.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_oneof, proptest};
use proptest::sample::select;
use vsock_compliance::pattern::Pattern;
use vsock_muxer_harness::guest::{GuestConfig, GuestRead, SocketId, SocketState};
use vsock_muxer_harness::host::{HostBackend, HostEnd, StreamKind};
use vsock_muxer_harness::sim::{Sim, SimConfig};
use vsock_proto::MessageFlags;

use crate::{WAYS, cases, connected, sim_with};

/// Longer than the longest pause between two packets beyond the window.
const LONGEST: Duration = Duration::from_millis(1300);

fn kernels() -> [GuestConfig; 2] {
    [GuestConfig::linux_6_1(), GuestConfig::default()]
}

/// A kernel that resets a connection with too many packets, and never merges packets.
fn that_merges_nothing() -> GuestConfig {
    GuestConfig {
        merges_small_packets: false,
        ..GuestConfig::default()
    }
}

/// Returns each of these kernels with each of these buffer sizes.
fn guests<'a>(
    kernels: &'a [GuestConfig],
    sizes: &'a [u32],
) -> impl Iterator<Item = GuestConfig> + 'a {
    let with_size = |buf_alloc, kernel: &GuestConfig| GuestConfig {
        buf_alloc,
        ..kernel.clone()
    };
    kernels
        .iter()
        .flat_map(move |kernel| sizes.iter().map(move |size| with_size(*size, kernel)))
}

/// A stream from a host to a guest program, and what has been sent and read.
struct Flow {
    sim: Sim,
    _backend: HostBackend,
    socket: SocketId,
    host: HostEnd,
    sent: Pattern,
    got: Pattern,
}

impl Flow {
    fn new(kind: StreamKind, guest: GuestConfig) -> Self {
        let (mut sim, backend) = sim_with(kind, 1 << 20, SimConfig::default(), guest);
        let (socket, host) = connected(&mut sim, &backend, 80);
        Self {
            sim,
            _backend: backend,
            socket,
            host,
            sent: Pattern::default(),
            got: Pattern::default(),
        }
    }

    /// The host writes. The bytes get a separate packet if that is allowed.
    fn write(&mut self, len: usize) {
        let written = self.host.write(&self.sent.peek(len)).unwrap();
        assert_eq!(written, len, "the stream is full");
        self.sent.advance(len);
        self.sim.settle().unwrap();
    }

    /// If the program has been woken, it reads everything.
    fn read(&mut self) -> bool {
        if !self.sim.guest.is_readable(self.socket) {
            return false;
        }
        match self.sim.guest.read(self.socket, usize::MAX) {
            Ok(GuestRead::Bytes(bytes)) => self.got.verify(&bytes).unwrap(),
            other => panic!("{other:?}"),
        }
        self.sim.settle().unwrap();
        true
    }

    /// Lets the program read when it is woken, until it has read `total` bytes.
    fn read_up_to(&mut self, total: u64, bound: Duration) {
        let start = self.sim.now();
        while self.got.position() < total {
            if !self.read() {
                let waited = self.sim.now().since(start);
                assert!(waited < bound, "{} of {total}", self.got.position());
                self.sim.pass(Duration::from_millis(10)).unwrap();
            }
        }
    }

    fn is_connected(&self) -> bool {
        self.sim.guest.state(self.socket) == Some(SocketState::Connected)
    }
}

#[test]
fn t128_a_reader_that_waits_for_many_bytes_gets_those_that_come_one_by_one() {
    let [old, new] = kernels();
    for guest in guests(&[old, new, that_merges_nothing()], &[256 * 1024, 4096]) {
        for (kind, _) in WAYS {
            let mut flow = Flow::new(kind, guest.clone());
            flow.sim.guest.set_lowat(flow.socket, 1000);
            for _ in 0..5000 {
                flow.write(1);
            }
            flow.read_up_to(4001, Duration::from_secs(10));
        }
    }
}

#[test]
fn t128_a_reader_that_waits_for_many_bytes_gets_those_of_a_slow_host() {
    for guest in guests(&kernels(), &[256 * 1024, 4096]) {
        for piece in [1, 100, 200] {
            let mut flow = Flow::new(StreamKind::Socket, guest.clone());
            flow.sim.guest.set_lowat(flow.socket, 3000);
            for _ in 0..20_000 / piece {
                flow.write(piece);
                flow.sim.pass(Duration::from_millis(1)).unwrap();
                flow.read();
            }
            flow.read_up_to(17_001, Duration::from_secs(2));
        }
    }
}

#[test]
fn t128_a_few_small_writes_do_not_stall_a_small_buffer() {
    for kernel in kernels().into_iter().chain([that_merges_nothing()]) {
        let guest = GuestConfig {
            buf_alloc: 4096,
            ..kernel
        };
        let mut flow = Flow::new(StreamKind::Socket, guest);
        flow.sim.guest.set_lowat(flow.socket, 600);
        for _ in 0..6 {
            flow.write(100);
        }
        flow.read_up_to(600, Duration::from_secs(1));
    }
}

#[test]
fn t128_many_small_packets_can_be_peeked_at() {
    for kernel in kernels().into_iter().chain([that_merges_nothing()]) {
        let mut flow = Flow::new(StreamKind::Socket, kernel);
        for _ in 0..1000 {
            flow.write(3);
        }
        let socket = flow.socket;
        let bound = Duration::from_secs(1);
        flow.sim
            .drive_until(bound, |sim| sim.guest.peek(socket, 3000).len() == 3000)
            .unwrap();
        flow.read_up_to(3000, bound);
    }
}

/// Runs for half an hour, with packets that the guest merges and packets that it does not merge.
#[test]
fn t128_a_reader_that_pauses_is_not_reset() {
    for guest in guests(&kernels(), &[256 * 1024, 4096, 1280, 1024]) {
        for piece in [1, 129, 1000] {
            let mut flow = Flow::new(StreamKind::Socket, guest.clone());
            for _ in 0..900 {
                flow.write(piece);
                flow.sim.pass(Duration::from_secs(2)).unwrap();
            }
            let size = guest.buf_alloc;
            assert!(flow.is_connected(), "{size} bytes in {piece}s");
            flow.read_up_to(900 * piece as u64, Duration::from_secs(600));
        }
    }
}

#[test]
fn t128_small_packets_that_are_read_do_not_wait() {
    for kernel in kernels() {
        let mut flow = Flow::new(StreamKind::Socket, kernel);
        let start = flow.sim.now();
        for _ in 0..5000 {
            flow.write(1);
            assert!(flow.read(), "after {}", flow.got.position());
        }
        assert_eq!(flow.sim.now(), start);
    }
}

/// Seqpacket messages to a program of the guest.
struct Messages {
    sim: Sim,
    _backend: HostBackend,
    socket: SocketId,
    host: HostEnd,
}

impl Messages {
    fn new(guest: GuestConfig) -> Self {
        let (mut sim, backend) = sim_with(StreamKind::Socket, 1 << 20, SimConfig::default(), guest);
        backend.listen(80, 1);
        let socket = sim.guest.connect_seqpacket(sim.now(), 80);
        sim.settle().unwrap();
        let host = backend.accept(80).unwrap();
        Self {
            sim,
            _backend: backend,
            socket,
            host,
        }
    }

    fn send(&mut self, len: usize) {
        assert!(
            self.host
                .send(&vec![7; len], MessageFlags::END_OF_MESSAGE)
                .unwrap(),
            "no room"
        );
        self.sim.settle().unwrap();
    }

    fn receive(&mut self) -> Option<usize> {
        let (message, _) = self.sim.guest.receive_message(self.socket)?;
        self.sim.settle().unwrap();
        Some(message.len())
    }

    fn queued(&self) -> usize {
        self.sim.guest.queued(self.socket)
    }

    fn is_connected(&self) -> bool {
        self.sim.guest.state(self.socket) == Some(SocketState::Connected)
    }
}

#[test]
fn t129_empty_messages_that_are_not_received_are_bounded() {
    for guest in guests(&kernels(), &[256 * 1024, 4096]) {
        // Each message counts as 1 KiB.
        let most = guest.buf_alloc as usize / 1024;
        let mut messages = Messages::new(guest);
        for at in 0..2000 {
            messages.send(0);
            // The guest sends packets that do not retire messages.
            match at % 3 {
                0 => messages.sim.guest.request_credit(messages.socket),
                1 => drop(messages.sim.guest.send(
                    messages.socket,
                    b"x",
                    MessageFlags::END_OF_MESSAGE,
                )),
                _ => messages.sim.pass(Duration::from_millis(500)).unwrap(),
            }
            messages.sim.settle().unwrap();
            drop(messages.host.receive());
        }
        assert!(messages.is_connected());
        assert_eq!(messages.queued(), most);
        for _ in 0..2000 {
            assert_eq!(messages.receive(), Some(0));
        }
        assert_eq!(messages.queued(), 0);
    }
}

#[test]
fn t129_a_reader_of_only_empty_messages_continues_receiving() {
    for guest in guests(&kernels(), &[256 * 1024, 4096, 600]) {
        let size = guest.buf_alloc;
        let mut messages = Messages::new(guest);
        for _ in 0..3000 {
            messages.send(0);
        }
        let start = messages.sim.now();
        for at in 0..3000 {
            assert_eq!(messages.receive(), Some(0), "{at} of {size}");
        }
        assert_eq!(messages.sim.now(), start, "a message had to wait");
    }
}

#[derive(Clone, Debug)]
enum Op {
    Writes(usize, usize),
    Reads,
    WaitsFor(usize),
    Passes(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (1..400_usize, select(vec![1, 2, 100, 128, 129, 500, 1024, 4052, 5000]))
            .prop_map(|(times, len)| Op::Writes(times, len)),
        2 => Just(Op::Reads),
        1 => select(vec![1, 1000, 100_000]).prop_map(Op::WaitsFor),
        2 => (1..3000_u64).prop_map(Op::Passes),
    ]
}

fn kernel() -> impl Strategy<Value = GuestConfig> {
    let sizes = vec![1280, 2048, 3000, 4096, 17_000, 64 * 1024, 256 * 1024];
    (select(kernels().to_vec()), select(sizes)).prop_map(|(kernel, buf_alloc)| GuestConfig {
        buf_alloc,
        ..kernel
    })
}

proptest! {
    #![proptest_config(cases(150))]

    /// In every state in which bytes wait and the guest has credit, some of them are sent within a
    /// pause. No kernel's queue ever holds more packets than it accepts.
    #[test]
    fn t128_bytes_for_which_there_is_credit_move_in_time(
        guest in kernel(),
        ops in vec(op(), 1..30),
    ) {
        let mut flow = Flow::new(StreamKind::Socket, guest);
        for op in ops {
            match op {
                Op::Writes(times, len) => {
                    for _ in 0..times {
                        if flow.host.unread_by_device() < (1 << 20) - len {
                            flow.write(len);
                        }
                    }
                }
                Op::Reads => drop(flow.read()),
                Op::WaitsFor(bytes) => flow.sim.guest.set_lowat(flow.socket, bytes),
                Op::Passes(millis) => flow.sim.pass(Duration::from_millis(millis)).unwrap(),
            }
            flow.sim.settle().unwrap();
            prop_assert!(flow.is_connected(), "the connection was reset");
            let waiting = flow.host.unread_by_device();
            let (free, _) = flow.sim.guest.rx_room(flow.socket);
            if waiting > 0 && free > 0 {
                flow.sim.pass(LONGEST).unwrap();
                prop_assert!(
                    flow.host.unread_by_device() < waiting,
                    "{waiting} bytes, {free} free"
                );
            }
        }
        flow.sim.guest.set_lowat(flow.socket, 1);
        flow.read_up_to(flow.sent.position(), Duration::from_secs(3600));
    }

    /// Messages of any size, most of them empty, for a program that receives now and then. All
    /// arrive, and the queue never holds more than it accepts.
    #[test]
    fn t129_messages_of_every_size_arrive_and_never_too_many(
        guest in kernel(),
        ops in vec(
            (0..80_usize, select(vec![0, 0, 0, 1, 200, 1000]), 0..90_usize, any::<bool>()),
            1..40,
        ),
    ) {
        let mut messages = Messages::new(guest);
        let (mut sent, mut received) = (0, 0);
        for (times, len, reads, passes) in ops {
            for _ in 0..times {
                messages.send(len);
                sent += 1;
            }
            for _ in 0..reads {
                received += usize::from(messages.receive().is_some());
            }
            if passes {
                messages.sim.pass(Duration::from_millis(700)).unwrap();
            }
            prop_assert!(messages.is_connected(), "the connection was reset");
        }
        while messages.receive().is_some() {
            received += 1;
            messages.sim.pass(LONGEST).unwrap();
        }
        prop_assert!(received == sent, "{received} of {sent}");
    }
}
