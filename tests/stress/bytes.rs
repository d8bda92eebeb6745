// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Gibibytes between two threads, with every byte compared.

use vsock_compliance::transfer::{Transfer, TransferPlan, WaitStyle};
use vsock_compliance::{BoxedStream, PairSource};
use vsock_inner::{Capacity, VsockInnerConfig};
use vsock_tests::inner::{Inner, Way};

use crate::{STALL_TIMEOUT, factor};

const MIB: u64 = 1 << 20;

/// Sends this many bytes from one end to the other, in pieces of up to `longest` bytes.
fn start(
    ends: (BoxedStream, BoxedStream),
    bytes: u64,
    longest: usize,
    (writer, reader): (WaitStyle, WaitStyle),
    seed: u64,
) -> Transfer {
    let plan = |style, seed| TransferPlan {
        bytes: bytes * u64::from(factor()),
        longest,
        style,
        stall_timeout: STALL_TIMEOUT,
        seed,
    };
    Transfer::start(ends, plan(writer, seed), plan(reader, seed + 77)).unwrap()
}

fn transfer(source: &Inner, bytes: u64, longest: usize, drives: (WaitStyle, WaitStyle)) {
    let ends = source.pair().unwrap();
    start(ends, bytes, longest, drives, 0x5eed)
        .finish()
        .unwrap();
}

/// Returns every mix of the ways to wait.
fn mixes() -> impl Iterator<Item = (WaitStyle, WaitStyle)> {
    WaitStyle::ALL
        .into_iter()
        .flat_map(|writer| WaitStyle::ALL.map(|reader| (writer, reader)))
}

#[test]
fn every_mix_of_modes_moves_lengths_up_to_a_mebibyte() {
    for drives in mixes() {
        transfer(&Inner::by(Way::BackendAccepts), 256 * MIB, 1 << 20, drives);
    }
}

#[test]
fn every_mix_of_modes_moves_short_lengths() {
    for drives in mixes() {
        transfer(&Inner::by(Way::ListenerAccepts), 8 * MIB, 300, drives);
    }
}

#[test]
fn every_mix_of_modes_moves_through_a_narrow_connection() {
    for drives in mixes() {
        transfer(&Inner::holding(4096), 8 * MIB, 20_000, drives);
    }
}

#[test]
fn every_mix_of_modes_moves_through_one_byte() {
    for drives in mixes() {
        transfer(&Inner::holding(1), MIB / 64, 64, drives);
    }
}

#[test]
fn an_unbounded_connection_moves_every_byte() {
    let config = VsockInnerConfig::default()
        .to_device(Capacity::Unbounded)
        .to_application(Capacity::Unbounded);
    for drives in mixes().step_by(3) {
        transfer(&Inner::with(config), 32 * MIB, 1 << 20, drives);
    }
}

#[test]
fn simultaneous_connections_move_their_own_bytes() {
    const CONNECTIONS: usize = 8;
    let drives: Vec<_> = mixes().collect();
    let connections = (0..CONNECTIONS).map(|at| {
        let (application, device) = Inner::by(Way::Split).pair().unwrap();
        let drives = drives[at * 5 % drives.len()];
        start((device, application), 32 * MIB, 100_000, drives, at as u64)
    });
    for connection in connections.collect::<Vec<_>>() {
        connection.finish().unwrap();
    }
}
