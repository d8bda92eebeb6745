// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A simulated guest and a simulated host take any sequence of steps, with the muxer between them.

use std::io::ErrorKind;
use std::time::Duration;

use vsock_muxer_harness::guest::GuestConfig;
use vsock_muxer_harness::host::{RequestForm, StreamFault};
use vsock_muxer_harness::scenario::{Delivery, LinkStep, Scenario, ScenarioStep};
use vsock_muxer_harness::sim::{SimConfig, SimFailure, SimTrigger};
use vsock_proto::{Header, ShutdownFlags, SocketType};

use crate::bytes::Bytes;

/// The most steps of one input.
const MOST: usize = 150;

/// The first bytes configure the guest and its driver, the others select the steps.
pub fn fuzz(data: &[u8]) {
    if let Err(why) = live(Bytes(data)) {
        panic!("{why}");
    }
}

fn live(mut bytes: Bytes<'_>) -> Result<(), SimFailure> {
    let first = bytes.byte();
    let config = SimConfig {
        trigger: if first & 1 == 0 {
            SimTrigger::Edge
        } else {
            SimTrigger::Level
        },
        tx_packets: usize::from(first >> 1 & 3) + 1,
        ..SimConfig::default()
    };
    let second = bytes.byte();
    let guest = GuestConfig {
        buf_alloc: [600, 4096, 65_536, 262_144][usize::from(second & 3)],
        rx_buffers: [1, 3, 16, 128][usize::from(second >> 2 & 3)],
        rx_buffer_bytes: [45, 64, 1024, 4096][usize::from(second >> 4 & 3)],
        caps_credit: second & 64 == 0,
        updates_when_empty: second & 128 == 0,
        ..GuestConfig::default()
    };
    let mut scenario = Scenario::new(config, guest)?;
    for _ in 0..MOST {
        if bytes.is_empty() {
            break;
        }
        scenario.apply(&op(&mut bytes))?;
    }
    scenario.wind_down(Delivery::Partial)
}

fn fault(byte: u8) -> StreamFault {
    StreamFault::ALL[usize::from(byte) % StreamFault::ALL.len()]
}

fn op(bytes: &mut Bytes<'_>) -> ScenarioStep {
    let kind = bytes.byte();
    let at = usize::from(kind >> 5);
    match kind & 31 {
        0 => ScenarioStep::GuestConnects(SocketType::Stream),
        1 if at & 1 == 0 => ScenarioStep::HostConnects(SocketType::Stream, RequestForm::Text),
        1 => ScenarioStep::HostConnects(SocketType::Stream, RequestForm::OutOfBand),
        kind @ (2..20 | 29 | 30) => ScenarioStep::On(at, on_link(kind, bytes)),
        20 => ScenarioStep::GuestReconnects(at),
        21 => ScenarioStep::GuestStarves,
        22 => ScenarioStep::GuestFeeds,
        23 => ScenarioStep::Settles,
        24 => ScenarioStep::Passes(Duration::from_millis(bytes.short().into())),
        25 if at & 1 == 0 => ScenarioStep::Reboots,
        25 => ScenarioStep::Stops,
        26 => ScenarioStep::TransportResets,
        27 => ScenarioStep::AcceptFails(ErrorKind::WouldBlock),
        28 => ScenarioStep::Raw(header(bytes), 0),
        _ => ScenarioStep::Steps(at),
    }
}

fn on_link(kind: u8, bytes: &mut Bytes<'_>) -> LinkStep {
    let len = |bytes: &mut Bytes<'_>| usize::from(bytes.short());
    match kind {
        2 | 3 => LinkStep::GuestWrites(len(bytes)),
        4 | 5 => LinkStep::HostWrites(len(bytes)),
        6 | 7 => LinkStep::GuestReads(len(bytes)),
        8 | 9 => LinkStep::HostReads(len(bytes)),
        10 => LinkStep::GuestShutsDown(ShutdownFlags::from_bits(bytes.byte().into())),
        11 => LinkStep::HostEnds,
        12 => LinkStep::GuestCloses,
        13 => LinkStep::HostCloses,
        14 => LinkStep::GuestResets,
        15 => LinkStep::HostResets,
        16 => LinkStep::GuestResizes(bytes.number()),
        17 => LinkStep::GuestAsks,
        18 => LinkStep::ReadFails(usize::from(bytes.byte() & 3), fault(bytes.byte())),
        19 => LinkStep::WriteFails(usize::from(bytes.byte() & 3), fault(bytes.byte())),
        _ => LinkStep::Raw(header(bytes), usize::from(bytes.byte())),
    }
}

fn header(bytes: &mut Bytes<'_>) -> Header {
    let odd = bytes.byte();
    Header {
        src_cid: if odd & 15 == 15 {
            bytes.number().into()
        } else {
            3
        },
        dst_cid: if odd >> 4 == 15 {
            bytes.number().into()
        } else {
            2
        },
        src_port: 49_152 + u32::from(bytes.byte() & 7),
        dst_port: bytes.number(),
        len: 0,
        socket_type: if odd == 7 { bytes.short() } else { 1 },
        op: u16::from(bytes.byte() % 9),
        flags: bytes.byte().into(),
        buf_alloc: bytes.number(),
        fwd_cnt: bytes.number(),
    }
}
