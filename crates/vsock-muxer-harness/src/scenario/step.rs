// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io::ErrorKind;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use vsock_proto::{Header, ShutdownFlags, SocketType};

use crate::host::{RequestForm, StreamFault};

/// A step of a [`Scenario`](super::Scenario). Connections are selected by number, modulo the number
/// of connections.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ScenarioStep {
    /// A program in the guest connects to a component, with a socket of this type.
    GuestConnects(SocketType),
    /// A program in the guest connects again, with the same ports as an existing connection.
    GuestReconnects(usize),
    /// A component connects to a program in the guest, with a socket of this type.
    HostConnects(SocketType, RequestForm),
    /// A step that affects one connection.
    On(usize, LinkStep),
    /// An accept of the backend fails.
    AcceptFails(ErrorKind),
    /// The guest's driver stops providing buffers.
    GuestStarves,
    /// The guest's driver provides buffers again.
    GuestFeeds,
    /// The event loop takes this many turns.
    Steps(usize),
    /// The event loop takes turns until nothing is left to do.
    Settles,
    /// Time passes.
    Passes(Duration),
    /// The guest reboots.
    Reboots,
    /// The device stops and is replaced by another one.
    Stops,
    /// The transport is reset.
    TransportResets,
    /// The guest sends this header and this many bytes.
    Raw(Header, usize),
}

/// A step that affects one connection.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LinkStep {
    /// The guest writes this many bytes, as far as its credit allows, or one message of this
    /// length.
    GuestWrites(usize),
    /// The guest reads at most this many bytes.
    GuestReads(usize),
    /// The guest shuts down.
    GuestShutsDown(ShutdownFlags),
    /// The guest closes.
    GuestCloses,
    /// The guest resets.
    GuestResets,
    /// The guest's receive buffer is resized.
    GuestResizes(u32),
    /// The guest requests credit.
    GuestAsks,
    /// The component writes.
    HostWrites(usize),
    /// The component reads.
    HostReads(usize),
    /// The component shuts down its writing.
    HostEnds,
    /// The component drops its end.
    HostCloses,
    /// The component's end is reset.
    HostResets,
    /// The device's read, this many calls from now, has a fault.
    ReadFails(usize, StreamFault),
    /// The device's write, this many calls from now, has a fault.
    WriteFails(usize, StreamFault),
    /// The guest sends this header, with the ports of the connection, and this many bytes.
    Raw(Header, usize),
}

/// Generates steps of a well-behaved guest and host, in any order. Every byte must arrive.
pub fn calm() -> impl Strategy<Value = ScenarioStep> + Clone {
    let link = prop_oneof![
        12 => length().prop_map(LinkStep::GuestWrites),
        10 => length().prop_map(LinkStep::GuestReads),
        12 => length().prop_map(LinkStep::HostWrites),
        10 => length().prop_map(LinkStep::HostReads),
        2 => flags().prop_map(LinkStep::GuestShutsDown),
        2 => Just(LinkStep::HostEnds),
        1 => Just(LinkStep::GuestCloses),
        1 => Just(LinkStep::HostCloses),
        1 => buffer().prop_map(LinkStep::GuestResizes),
        1 => Just(LinkStep::GuestAsks),
        2 => (0..4_usize, harmless()).prop_map(|(call, fault)| LinkStep::ReadFails(call, fault)),
        2 => (0..4_usize, harmless()).prop_map(|(call, fault)| LinkStep::WriteFails(call, fault)),
    ];
    prop_oneof![
        4 => Just(ScenarioStep::GuestConnects(SocketType::Stream)),
        3 => form().prop_map(|form| ScenarioStep::HostConnects(SocketType::Stream, form)),
        2 => Just(ScenarioStep::GuestConnects(SocketType::SeqPacket)),
        2 => form().prop_map(|form| ScenarioStep::HostConnects(SocketType::SeqPacket, form)),
        56 => (0..6_usize, link).prop_map(|(at, step)| ScenarioStep::On(at, step)),
        1 => Just(ScenarioStep::AcceptFails(ErrorKind::WouldBlock)),
        1 => Just(ScenarioStep::GuestStarves),
        2 => Just(ScenarioStep::GuestFeeds),
        12 => (1..4_usize).prop_map(ScenarioStep::Steps),
        12 => Just(ScenarioStep::Settles),
        3 => (0..25_u64).prop_map(|millis| ScenarioStep::Passes(Duration::from_millis(millis))),
    ]
}

/// Generates the steps of [`calm`] and everything else that can happen: resets, failures, long
/// waits, reboots, and packets of a faulty or hostile guest.
pub fn rough() -> impl Strategy<Value = ScenarioStep> + Clone {
    let fault = (0..4_usize, select(StreamFault::ALL.to_vec()));
    let link = prop_oneof![
        1 => Just(LinkStep::GuestResets),
        1 => Just(LinkStep::HostResets),
        1 => fault.clone().prop_map(|(call, fault)| LinkStep::ReadFails(call, fault)),
        1 => fault.prop_map(|(call, fault)| LinkStep::WriteFails(call, fault)),
        8 => (header(), payload()).prop_map(|(header, len)| LinkStep::Raw(header, len)),
    ];
    prop_oneof![
        40 => calm(),
        2 => (0..6_usize).prop_map(ScenarioStep::GuestReconnects),
        12 => (0..6_usize, link).prop_map(|(at, step)| ScenarioStep::On(at, step)),
        2 => (0..12_000_u64).prop_map(|millis| ScenarioStep::Passes(Duration::from_millis(millis))),
        1 => Just(ScenarioStep::Reboots),
        1 => Just(ScenarioStep::Stops),
        1 => Just(ScenarioStep::TransportResets),
        4 => (header(), payload()).prop_map(|(header, len)| ScenarioStep::Raw(header, len)),
    ]
}

/// Returns this many steps of a strategy, which are always the same for a seed.
///
/// ```
/// use vsock_muxer_harness::scenario::{calm, from_seed};
///
/// assert_eq!(from_seed(calm(), 7, 20), from_seed(calm(), 7, 20));
/// ```
#[must_use]
pub fn from_seed(
    strategy: impl Strategy<Value = ScenarioStep>,
    seed: u64,
    count: usize,
) -> Vec<ScenarioStep> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    vec(strategy, count)
        .new_tree(&mut runner)
        .map(|tree| tree.current())
        .unwrap_or_default()
}

fn form() -> impl Strategy<Value = RequestForm> + Clone {
    select(vec![RequestForm::Text, RequestForm::OutOfBand])
}

fn length() -> impl Strategy<Value = usize> + Clone {
    prop_oneof![
        3 => 0..100_usize,
        2 => 100..5000_usize,
        1 => Just(4096 - 44_usize),
        1 => 5000..300_000_usize,
    ]
}

fn flags() -> impl Strategy<Value = ShutdownFlags> + Clone {
    select(vec![
        ShutdownFlags::NONE,
        ShutdownFlags::SEND,
        ShutdownFlags::SEND,
        ShutdownFlags::RECEIVE,
        ShutdownFlags::BOTH,
    ])
}

fn buffer() -> impl Strategy<Value = u32> + Clone {
    select(vec![1, 64, 1024, 4096, 16 * 1024, 256 * 1024, 1 << 20])
}

fn harmless() -> impl Strategy<Value = StreamFault> + Clone {
    let all = StreamFault::ALL.into_iter();
    select(all.filter(|fault| fault.is_harmless()).collect::<Vec<_>>())
}

fn payload() -> impl Strategy<Value = usize> + Clone {
    prop_oneof![3 => Just(0_usize), 2 => 1..100_usize, 1 => Just(64 * 1024_usize)]
}

/// Generates numbers near a limit, and any others.
fn edge() -> impl Strategy<Value = u32> + Clone {
    let edges = vec![0, 1, 64, 4096, 1 << 18, i32::MAX as u32, 1 << 31, u32::MAX];
    prop_oneof![2 => select(edges), 1 => any::<u32>()]
}

/// Generates headers that a hostile driver may send, most of them almost valid.
fn header() -> impl Strategy<Value = Header> + Clone {
    let cids = (
        prop_oneof![12 => Just(3_u64), 1 => any::<u64>(), 1 => 0..5_u64],
        prop_oneof![12 => Just(2_u64), 1 => any::<u64>(), 1 => 0..5_u64],
    );
    let ports = (
        prop_oneof![1 => 49_152..49_160_u32, 1 => any::<u32>()],
        prop_oneof![2 => 1000..1008_u32, 1 => (1_u32 << 30)..(1 << 30) + 8, 1 => any::<u32>()],
    );
    let kind = (
        prop_oneof![12 => Just(1_u16), 4 => Just(2_u16), 1 => 0..5_u16],
        prop_oneof![12 => 1..8_u16, 1 => any::<u16>()],
        prop_oneof![3 => 0..4_u32, 1 => any::<u32>()],
    );
    (cids, ports, kind, edge(), edge()).prop_map(
        |(
            (src_cid, dst_cid),
            (src_port, dst_port),
            (socket_type, op, flags),
            buf_alloc,
            fwd_cnt,
        )| {
            Header {
                src_cid,
                dst_cid,
                src_port,
                dst_port,
                len: 0,
                socket_type,
                op,
                flags,
                buf_alloc,
                fwd_cnt,
            }
        },
    )
}
