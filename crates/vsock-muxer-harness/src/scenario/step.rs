// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io::ErrorKind;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use vsock_proto::{Header, ShutdownFlags};

use crate::host::StreamFault;

/// Something that happens to a [`Scenario`](super::Scenario). Connections are named by number,
/// modulo those that there are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ScenarioStep {
    /// A program of the guest connects to a component.
    GuestConnects,
    /// A program of the guest connects once more, from and to the ports of a connection.
    GuestReconnects(usize),
    /// A component connects to a program of the guest, by a line of text or out of band.
    HostConnects {
        /// By a line of text.
        text: bool,
    },
    /// A program of the guest connects to a component, for messages.
    GuestConnectsSeqpacket,
    /// A component connects to a program of the guest, for messages: by a first message or out of
    /// band.
    HostConnectsSeqpacket {
        /// By a first message.
        text: bool,
    },
    /// The guest writes so many bytes, as far as it may, or a message of so many.
    GuestWrites(usize, usize),
    /// The guest reads at most so many.
    GuestReads(usize, usize),
    /// The guest shuts down.
    GuestShutsDown(usize, ShutdownFlags),
    /// The guest closes.
    GuestCloses(usize),
    /// The guest resets.
    GuestResets(usize),
    /// The guest's receive buffer gets this size.
    GuestResizes(usize, u32),
    /// The guest asks for credit.
    GuestAsks(usize),
    /// The component writes.
    HostWrites(usize, usize),
    /// The component reads.
    HostReads(usize, usize),
    /// The component shuts its writing down.
    HostEnds(usize),
    /// The component drops its end.
    HostCloses(usize),
    /// The component's end is reset.
    HostResets(usize),
    /// The device's read, so many calls from now, has a fault.
    ReadFails(usize, usize, StreamFault),
    /// The device's write, so many calls from now, has a fault.
    WriteFails(usize, usize, StreamFault),
    /// An accept of the backend fails.
    AcceptFails(ErrorKind),
    /// The driver of the guest posts no buffer again.
    GuestStarves,
    /// It does again.
    GuestFeeds,
    /// So many turns.
    Steps(usize),
    /// Turns until nothing is left to do.
    Settles,
    /// Time passes.
    Passes(Duration),
    /// The guest reboots.
    Reboots,
    /// The device stops, and another one takes its place.
    Stops,
    /// The transport is reset.
    TransportResets,
    /// The guest sends this header and that many bytes.
    Raw(Header, usize),
    /// As [`Raw`](Self::Raw), with the ports of a connection.
    RawOn(usize, Header, usize),
}

/// What a guest and a host that mean well do, in any order: every byte arrives.
pub fn calm() -> impl Strategy<Value = ScenarioStep> + Clone {
    let at = 0..6_usize;
    prop_oneof![
        4 => Just(ScenarioStep::GuestConnects),
        3 => any::<bool>().prop_map(|text| ScenarioStep::HostConnects { text }),
        2 => Just(ScenarioStep::GuestConnectsSeqpacket),
        2 => any::<bool>().prop_map(|text| ScenarioStep::HostConnectsSeqpacket { text }),
        12 => (at.clone(), length()).prop_map(|(at, len)| ScenarioStep::GuestWrites(at, len)),
        10 => (at.clone(), length()).prop_map(|(at, len)| ScenarioStep::GuestReads(at, len)),
        12 => (at.clone(), length()).prop_map(|(at, len)| ScenarioStep::HostWrites(at, len)),
        10 => (at.clone(), length()).prop_map(|(at, len)| ScenarioStep::HostReads(at, len)),
        2 => (at.clone(), flags()).prop_map(|(at, flags)| ScenarioStep::GuestShutsDown(at, flags)),
        2 => at.clone().prop_map(ScenarioStep::HostEnds),
        1 => at.clone().prop_map(ScenarioStep::GuestCloses),
        1 => at.clone().prop_map(ScenarioStep::HostCloses),
        1 => (at.clone(), buffer()).prop_map(|(at, bytes)| ScenarioStep::GuestResizes(at, bytes)),
        1 => at.clone().prop_map(ScenarioStep::GuestAsks),
        2 => (at.clone(), 0..4_usize, harmless())
            .prop_map(|(at, call, fault)| ScenarioStep::ReadFails(at, call, fault)),
        2 => (at, 0..4_usize, harmless())
            .prop_map(|(at, call, fault)| ScenarioStep::WriteFails(at, call, fault)),
        1 => Just(ScenarioStep::AcceptFails(ErrorKind::WouldBlock)),
        1 => Just(ScenarioStep::GuestStarves),
        2 => Just(ScenarioStep::GuestFeeds),
        12 => (1..4_usize).prop_map(ScenarioStep::Steps),
        12 => Just(ScenarioStep::Settles),
        3 => (0..25_u64).prop_map(|millis| ScenarioStep::Passes(Duration::from_millis(millis))),
    ]
}

/// As [`calm`], and whatever else can happen: resets, failures, long waits, reboots, and packets of
/// a guest that is broken or hostile.
pub fn rough() -> impl Strategy<Value = ScenarioStep> + Clone {
    let at = 0..6_usize;
    prop_oneof![
        40 => calm(),
        2 => at.clone().prop_map(ScenarioStep::GuestReconnects),
        1 => at.clone().prop_map(ScenarioStep::GuestResets),
        1 => at.clone().prop_map(ScenarioStep::HostResets),
        1 => (at.clone(), 0..4_usize, select(StreamFault::ALL.to_vec()))
            .prop_map(|(at, call, fault)| ScenarioStep::ReadFails(at, call, fault)),
        1 => (at.clone(), 0..4_usize, select(StreamFault::ALL.to_vec()))
            .prop_map(|(at, call, fault)| ScenarioStep::WriteFails(at, call, fault)),
        2 => (0..12_000_u64).prop_map(|millis| ScenarioStep::Passes(Duration::from_millis(millis))),
        1 => Just(ScenarioStep::Reboots),
        1 => Just(ScenarioStep::Stops),
        1 => Just(ScenarioStep::TransportResets),
        4 => (header(), payload()).prop_map(|(header, len)| ScenarioStep::Raw(header, len)),
        8 => (at, header(), payload()).prop_map(|(at, header, len)| ScenarioStep::RawOn(at, header, len)),
    ]
}

/// So many operations of a strategy, always the same ones for a seed.
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

/// Numbers around which something changes, and any other.
fn edge() -> impl Strategy<Value = u32> + Clone {
    let edges = vec![0, 1, 64, 4096, 1 << 18, i32::MAX as u32, 1 << 31, u32::MAX];
    prop_oneof![2 => select(edges), 1 => any::<u32>()]
}

/// Headers that a hostile driver may send: most of them almost right.
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
