// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Gibibytes between two threads, every byte compared.

use std::io;

use vsock_compliance::call::Call;
use vsock_compliance::transfer::{TransferPlan, TransferProgress, WaitStyle, receive, send};
use vsock_compliance::{BoxedStream, PairSource};
use vsock_inner::{Capacity, VsockInnerConfig};
use vsock_tests::inner::{Inner, Way};

use crate::{PATIENCE, factor};

const MIB: u64 = 1 << 20;

/// One side of a transfer, on its thread.
struct Side {
    name: &'static str,
    plan: TransferPlan,
    progress: TransferProgress,
    call: Call<io::Result<BoxedStream>>,
}

impl Side {
    fn start(name: &'static str, mut stream: BoxedStream, plan: TransferPlan, run: Run) -> Self {
        let progress = TransferProgress::default();
        let told = progress.clone();
        let call = Call::start(move || run(&mut stream, plan, &told).map(|()| stream)).unwrap();
        Self {
            name,
            plan,
            progress,
            call,
        }
    }
}

type Run = fn(&mut BoxedStream, TransferPlan, &TransferProgress) -> io::Result<()>;

/// Waits for every side; if one hangs or fails, says where each of them is.
fn join(sides: Vec<Side>) -> Vec<BoxedStream> {
    let states: Vec<_> = sides
        .iter()
        .map(|side| (side.name, side.plan, side.progress.clone()))
        .collect();
    let state = || {
        let lines = states.iter().map(|(name, plan, progress)| {
            format!(
                "{name} by {:?}: {} of {} bytes\n",
                plan.style,
                progress.bytes(),
                plan.bytes
            )
        });
        lines.collect::<String>()
    };
    // The streams live until all are done: a drop would reset the other side.
    let done = sides.into_iter().map(
        |Side {
             name,
             plan,
             progress,
             call,
         }| {
            match call.finish_moving(plan.stall_timeout, || progress.bytes()) {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => panic!("{name} failed: {error}\n{}", state()),
                Err(error) => panic!("{name} hangs: {error}\n{}", state()),
            }
        },
    );
    done.collect()
}

/// Sends so many bytes from one end to the other, in lengths up to the longest.
fn sides(
    ends: (BoxedStream, BoxedStream),
    bytes: u64,
    longest: usize,
    drives: (WaitStyle, WaitStyle),
    seed: u64,
) -> [Side; 2] {
    let plan = |style, seed| TransferPlan {
        bytes: bytes * u64::from(factor()),
        longest,
        style,
        stall_timeout: PATIENCE,
        seed,
    };
    let writer: Run = |stream, plan, progress| send(&mut **stream, plan, progress);
    let reader: Run = |stream, plan, progress| receive(&mut **stream, plan, progress);
    [
        Side::start("writer", ends.0, plan(drives.0, seed), writer),
        Side::start("reader", ends.1, plan(drives.1, seed + 77), reader),
    ]
}

fn transfer(source: &Inner, bytes: u64, longest: usize, drives: (WaitStyle, WaitStyle)) {
    let ends = source.pair().unwrap();
    join(sides(ends, bytes, longest, drives, 0x5eed).into());
}

/// Every mix of the ways to wait.
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
fn an_unbounded_connection_moves_as_much_as_any() {
    let config = VsockInnerConfig::default()
        .to_device(Capacity::Unbounded)
        .to_application(Capacity::Unbounded);
    for drives in mixes().step_by(3) {
        transfer(
            &Inner {
                way: Way::Pair,
                config,
            },
            32 * MIB,
            1 << 20,
            drives,
        );
    }
}

#[test]
fn many_connections_at_once_move_their_own_bytes() {
    const CONNECTIONS: usize = 8;
    let drives: Vec<_> = mixes().collect();
    let connections = (0..CONNECTIONS).flat_map(|at| {
        let (application, device) = Inner::by(Way::Split).pair().unwrap();
        let drives = drives[at * 5 % drives.len()];
        sides((device, application), 32 * MIB, 100_000, drives, at as u64)
    });
    join(connections.collect());
}
