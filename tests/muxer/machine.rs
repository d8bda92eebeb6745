// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Random sequences of steps. Everything is checked on the way, and no state may be left at the
//! end.
//!
//! By default these are more than 10,000 cases together. `PROPTEST_CASES` sets the number for each
//! property.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::{Strategy, any, prop_assert_eq, proptest};
use proptest::sample::select;
use proptest::test_runner::TestCaseError;
use vsock_muxer_harness::guest::GuestConfig;
use vsock_muxer_harness::host::StreamFault;
use vsock_muxer_harness::scenario::{
    Delivery, LinkStep, Scenario, ScenarioStep, calm, from_seed, rough,
};
use vsock_muxer_harness::sim::{Arrival, SimConfig, SimTrigger, TracedPacket};
use vsock_proto::{Config, Header, Op, ShutdownFlags, SocketType};

use crate::cases;

/// Guests of every kind: large and small windows, old and new kernels, many and few buffers.
fn guest() -> impl Strategy<Value = GuestConfig> {
    (
        select(vec![256 * 1024, 64 * 1024, 16 * 1024, 4096, 600]),
        select(vec![1, 2, 7, 128]),
        select(vec![45, 60, 1024, 4096, 70_000]),
        select(vec![1, 4, 128]),
        select(vec![0, 576, 640]),
        any::<(bool, bool, bool)>(),
    )
        .prop_map(
            |(buf_alloc, rx_buffers, rx_buffer_bytes, tx_packets, overhead, quirks)| GuestConfig {
                buf_alloc,
                rx_buffers,
                rx_buffer_bytes,
                tx_packets,
                packet_overhead: overhead,
                caps_credit: quirks.0,
                updates_when_empty: quirks.1,
                merges_small_packets: quirks.2,
                ..GuestConfig::default()
            },
        )
}

/// Drivers of every kind, and muxers with much or little room.
fn driver() -> impl Strategy<Value = SimConfig> {
    (
        select(vec![SimTrigger::Edge, SimTrigger::Level]),
        select(vec![
            (Arrival::Alone, 256),
            (Arrival::Together, 2),
            (Arrival::Together, 256),
        ]),
        select(vec![1, 5000, 512 * 1024]),
        select(vec![1, 2, 64]),
        select(vec![256 * 1024, 16 * 1024, 1000]),
        select(vec![64 * 1024, 100]),
    )
        .prop_map(
            |(trigger, (arrival, tx_packets), rx_bytes, events, buf_alloc, max_payload)| {
                SimConfig {
                    muxer: Config::builder()
                        .buf_alloc(buf_alloc)
                        .max_payload(max_payload)
                        .host_ports(1 << 30..(1 << 30) + 16)
                        .max_resets(8)
                        .build()
                        .unwrap(),
                    trigger,
                    arrival,
                    tx_packets,
                    rx_bytes,
                    events,
                    turns: 200_000,
                }
            },
        )
}

fn live(
    config: SimConfig,
    guest: GuestConfig,
    ops: &[ScenarioStep],
    delivery: Delivery,
) -> Result<(), TestCaseError> {
    let mut scenario = Scenario::new(config, guest)?;
    for (at, op) in ops.iter().enumerate() {
        scenario
            .apply(op)
            .map_err(|why| TestCaseError::fail(format!("at {at}, {op:?}: {why}")))?;
    }
    scenario.wind_down(delivery)?;
    Ok(())
}

proptest! {
    #![proptest_config(cases(6000))]

    #[test]
    fn every_byte_arrives_in_order_and_no_resource_is_left(ops in vec(calm(), 1..60)) {
        live(SimConfig::default(), GuestConfig::default(), &ops, Delivery::Complete)?;
    }
}

proptest! {
    #![proptest_config(cases(2000))]

    #[test]
    fn every_guest_works_with_every_driver(
        config in driver(),
        guest in guest(),
        ops in vec(calm(), 1..60),
    ) {
        live(config, guest, &ops, Delivery::Complete)?;
    }
}

proptest! {
    #![proptest_config(cases(2500))]

    #[test]
    fn no_resource_is_left_whatever_happens(
        config in driver(),
        guest in guest(),
        ops in vec(rough(), 1..80),
    ) {
        live(config, guest, &ops, Delivery::Partial)?;
    }
}

/// One buffer, one packet and one event for each turn, so that a turn may consist of one read that
/// finds nothing.
fn narrow() -> (SimConfig, GuestConfig) {
    let config = SimConfig {
        tx_packets: 1,
        rx_bytes: 1,
        events: 1,
        turns: 200_000,
        ..SimConfig::default()
    };
    let guest = GuestConfig {
        rx_buffers: 1,
        rx_buffer_bytes: 45,
        tx_packets: 1,
        ..GuestConfig::default()
    };
    (config, guest)
}

#[test]
fn a_turn_with_an_empty_read_is_not_the_last() {
    let (config, guest) = narrow();
    let ops = [
        ScenarioStep::GuestConnects(SocketType::Stream),
        ScenarioStep::Steps(1),
        ScenarioStep::On(0, LinkStep::ReadFails(0, StreamFault::WouldBlock)),
        ScenarioStep::On(0, LinkStep::HostWrites(1)),
        ScenarioStep::GuestConnects(SocketType::Stream),
    ];
    live(config, guest, &ops, Delivery::Complete).unwrap();
}

#[test]
fn a_guest_that_has_ended_its_sending_needs_no_credit() {
    let ops = [
        ScenarioStep::GuestConnects(SocketType::Stream),
        ScenarioStep::Steps(1),
        ScenarioStep::On(0, LinkStep::GuestWrites(64)),
        ScenarioStep::On(0, LinkStep::GuestShutsDown(ShutdownFlags::SEND)),
        ScenarioStep::GuestConnects(SocketType::Stream),
        ScenarioStep::Steps(1),
        ScenarioStep::On(0, LinkStep::GuestResizes(1)),
        ScenarioStep::On(0, LinkStep::HostReads(100)),
        ScenarioStep::Settles,
    ];
    let (config, guest) = (SimConfig::default(), GuestConfig::default());
    live(config, guest, &ops, Delivery::Complete).unwrap();
}

#[test]
fn a_guest_whose_own_buffer_is_empty_waits_for_no_credit() {
    let ops = [
        ScenarioStep::GuestConnects(SocketType::Stream),
        ScenarioStep::On(0, LinkStep::GuestResizes(0)),
        ScenarioStep::Settles,
    ];
    let (config, guest) = (SimConfig::default(), GuestConfig::default());
    live(config, guest, &ops, Delivery::Complete).unwrap();
}

#[test]
fn many_ready_streams_do_not_spin_while_the_guest_has_no_buffers() {
    let (config, guest) = narrow();
    let mut ops = vec![ScenarioStep::GuestConnects(SocketType::Stream); 6];
    ops.extend([ScenarioStep::Steps(20), ScenarioStep::GuestStarves]);
    ops.extend((0..6).map(|at| ScenarioStep::On(at, LinkStep::HostWrites(1))));
    ops.push(ScenarioStep::Steps(10));
    live(config, guest, &ops, Delivery::Complete).unwrap();
}

#[test]
fn a_refused_type_does_not_hide_the_answer_to_the_other() {
    let (_, guest) = narrow();
    let request = |socket_type: SocketType| {
        let header = Header {
            src_cid: 3,
            dst_cid: 2,
            socket_type: socket_type.into(),
            op: Op::Request.into(),
            ..Header::default()
        };
        ScenarioStep::On(0, LinkStep::Raw(header, 0))
    };
    // Without a turn in between, the muxer takes all packets before it sends any.
    let ops = [
        ScenarioStep::GuestConnects(SocketType::SeqPacket),
        request(SocketType::Stream),
        ScenarioStep::On(0, LinkStep::GuestResets),
        request(SocketType::SeqPacket),
        request(SocketType::Stream),
    ];
    live(SimConfig::default(), guest, &ops, Delivery::Partial).unwrap();
}

/// The packets between the device and the guest, by the ports of guest and host.
type Passed = BTreeMap<(u32, u32), Vec<TracedPacket>>;

/// Returns the packets that pass if the guest's packets are delivered in this way.
fn passed(
    arrival: Arrival,
    guest: &GuestConfig,
    ops: &[ScenarioStep],
) -> Result<Passed, TestCaseError> {
    let config = SimConfig {
        arrival,
        ..SimConfig::default()
    };
    let mut scenario = Scenario::new(config, guest.clone())?;
    scenario.sim().record();
    for op in ops {
        scenario.apply(op)?;
    }
    let mut passed = Passed::new();
    for packet in scenario.sim().trace() {
        let ports = match packet {
            TracedPacket::FromGuest(header) => (header.src_port, header.dst_port),
            TracedPacket::ToGuest(header) => (header.dst_port, header.src_port),
        };
        passed.entry(ports).or_default().push(*packet);
    }
    scenario.wind_down(Delivery::Complete)?;
    Ok(passed)
}

proptest! {
    #![proptest_config(cases(800))]

    /// A batch has the same packets, credit and ends on every connection as its packets one by one.
    /// The scenario itself checks that the host reads the right bytes. The guest has enough
    /// buffers, because which connection gets one first may differ. Faults of a particular write
    /// are left out, because a batch makes fewer writes.
    #[test]
    fn a_batch_has_the_same_effect_as_its_packets_one_by_one(
        guest in guest(),
        ops in vec(calm(), 1..80),
    ) {
        let guest = GuestConfig {
            rx_buffers: 4096,
            ..guest
        };
        let is_fault =
            |op: &ScenarioStep| matches!(op, ScenarioStep::On(_, LinkStep::WriteFails(..)));
        let ops: Vec<_> = ops.into_iter().filter(|op| !is_fault(op)).collect();
        let alone = passed(Arrival::Alone, &guest, &ops)?;
        let together = passed(Arrival::Together, &guest, &ops)?;
        prop_assert_eq!(alone, together);
    }
}

/// Returns the packets between the device and the guest in a run that a seed determines.
fn trace(seed: u64) -> Vec<TracedPacket> {
    let mut scenario = Scenario::new(SimConfig::default(), GuestConfig::default()).unwrap();
    scenario.sim().record();
    for op in from_seed(rough(), seed, 600) {
        scenario.apply(&op).unwrap();
    }
    let trace = scenario.sim().trace().to_vec();
    scenario.wind_down(Delivery::Partial).unwrap();
    trace
}

#[test]
fn a_seed_reproduces_its_packets() {
    let first = trace(1);
    assert!(first.len() > 40, "{} packets", first.len());
    assert_eq!(trace(1), first);
    assert_ne!(trace(2), first);
}
