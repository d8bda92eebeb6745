// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Bulk transfers, in writes of every size.

use anyhow::Context;

use super::pairs::{Opener, Pair, connect};
use super::transfers::Transfers;
use super::{Outcome, Test};
use crate::bytes::range;
use crate::machine::Machine;

pub(super) const TESTS: &[Test] = &[
    Test::new("bulk_to_the_host_when_the_guest_connects", |machine| {
        to_host(machine, Opener::Guest)
    }),
    Test::new("bulk_to_the_host_when_the_host_connects", |machine| {
        to_host(machine, Opener::Host)
    }),
    Test::new("bulk_to_the_guest_when_the_guest_connects", |machine| {
        to_guest(machine, Opener::Guest)
    }),
    Test::new("bulk_to_the_guest_when_the_host_connects", |machine| {
        to_guest(machine, Opener::Host)
    }),
    Test::new("bulk_both_ways_at_once", both_ways),
    Test::new("eight_streams_at_once_each_with_its_own_bytes", eight),
];

/// The bytes to send and the size of a write. Small writes are costly, so they send fewer bytes.
const CASES: [(u64, u32); 5] = [
    (512 << 10, 64),
    (4 << 20, 1 << 10),
    (16 << 20, 4 << 10),
    (32 << 20, 64 << 10),
    (32 << 20, 1 << 20),
];

fn sizes(
    machine: &mut Machine,
    opener: Opener,
    mut way: impl FnMut(&Machine, &mut Pair, u64, u32) -> anyhow::Result<()>,
) -> anyhow::Result<Outcome> {
    for (len, piece) in CASES {
        let mut pair = connect(machine, opener)?;
        way(machine, &mut pair, len, piece).with_context(|| format!("writes of {piece}"))?;
        machine.guest().close(pair.guest)?;
    }
    Ok(Outcome::Passed)
}

fn to_host(machine: &mut Machine, opener: Opener) -> anyhow::Result<Outcome> {
    sizes(machine, opener, |machine, pair, len, piece| {
        pair.send_to_host(machine, range(len ^ 1, len, piece))
    })
}

fn to_guest(machine: &mut Machine, opener: Opener) -> anyhow::Result<Outcome> {
    sizes(machine, opener, |machine, pair, len, piece| {
        pair.send_to_guest(machine, range(len ^ 2, len, piece))
    })
}

fn both_ways(machine: &mut Machine) -> anyhow::Result<Outcome> {
    for opener in Opener::BOTH {
        let pair = connect(machine, opener)?;
        duplex(machine, vec![pair], 16 << 20)?;
    }
    Ok(Outcome::Passed)
}

fn eight(machine: &mut Machine) -> anyhow::Result<Outcome> {
    let mut pairs = Vec::new();
    for turn in 0..8 {
        pairs.push(connect(machine, Opener::BOTH[turn % 2])?);
    }
    duplex(machine, pairs, 4 << 20)?;
    Ok(Outcome::Passed)
}

/// Sends bytes in both directions of all connections at the same time.
fn duplex(machine: &Machine, pairs: Vec<Pair>, len: u64) -> anyhow::Result<()> {
    for pair in Transfers::start(machine, pairs, len)?.finish()? {
        machine.guest().close(pair.guest)?;
    }
    Ok(())
}
