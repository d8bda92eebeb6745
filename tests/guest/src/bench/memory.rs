// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Measures the memory and CPU time that a device needs for connections that carry nothing.

use std::time::Duration;

use vsock_guest_program::job::Range;

use super::results::IdleCost;
use crate::machine::Machine;
use crate::suite::many::crowd;
use crate::suite::pairs::{Opener, connect};
use crate::suite::slow::at_rest;

/// A measurement and its name.
type Measure = (&'static str, fn(&mut Machine) -> anyhow::Result<IdleCost>);

/// All measurements.
pub(super) const ALL: [Measure; 3] = [
    ("1,000 idle connections, guest connects", |machine| {
        idle(machine, Opener::Guest)
    }),
    ("1,000 idle connections, host connects", |machine| {
        idle(machine, Opener::Host)
    }),
    ("50 connections whose host never reads", never_read),
];

const IDLE: u32 = 1_000;
const STALLED: u32 = 50;
/// How long the device is observed while nothing happens.
const WATCHED: Duration = Duration::from_secs(1);

fn idle(machine: &mut Machine, opener: Opener) -> anyhow::Result<IdleCost> {
    let before = machine.device().anonymous_bytes()?;
    let _crowd = crowd(machine, opener, IDLE)?;
    cost(machine, before, IDLE)
}

fn never_read(machine: &mut Machine) -> anyhow::Result<IdleCost> {
    let before = machine.device().anonymous_bytes()?;
    let mut pairs = Vec::new();
    for _ in 0..STALLED {
        let pair = connect(machine, Opener::Guest)?;
        let range = Range {
            seed: None,
            from: 0,
            len: 16 << 20,
            piece: 64 << 10,
        };
        // Never completes; it ends with the machine.
        drop(machine.guest().send(pair.guest, range)?);
        pairs.push(pair);
    }
    at_rest(machine, &pairs)?;
    cost(machine, before, STALLED)
}

fn cost(machine: &Machine, before: u64, connections: u32) -> anyhow::Result<IdleCost> {
    let bytes = machine.device().anonymous_bytes()?.saturating_sub(before);
    Ok(IdleCost {
        bytes_each: bytes as f64 / f64::from(connections),
        core: machine.idle_share(WATCHED)?,
    })
}
