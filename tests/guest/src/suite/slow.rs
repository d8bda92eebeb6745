// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Readers that do not read: no byte is lost, memory and processor use stay bounded, and other
//! connections keep working.

use std::io::ErrorKind;
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};
use vsock_guest_program::job::Range;
use vsock_guest_program::transfer;

use super::echo::requests;
use super::pairs::{Opener, Pair, connect};
use super::{Outcome, Test};
use crate::bytes::{complete, joined, range, receive};
use crate::child::wait_until;
use crate::device::LIMIT;
use crate::machine::{Footprint, Machine};

pub(super) const TESTS: &[Test] = &[
    Test::new("a_host_that_does_not_read_costs_nothing", slow_host).within(90),
    Test::new("g5_a_guest_that_does_not_read_costs_nothing", slow_guest).within(90),
];

/// Connections that stall, half of them opened by each side.
const STALLED: usize = 32;
/// The bytes that the sender tries to send on each.
const MUCH: u64 = 8 << 20;
/// What a device may keep for a stalled connection, in both directions together.
const KEPT: u64 = 768 << 10;
/// What the device may keep in addition: its allocator's memory, and 8 MiB of blocks that
/// in-process streams share.
const SLACK: u64 = 12 << 20;
/// How long the device is watched without traffic, and the share of a core that it may then use.
const WATCHED: Duration = Duration::from_secs(1);
const IDLE: f64 = 0.05;
/// A write that waits this long is blocked.
const STUCK: Duration = Duration::from_secs(2);

fn slow_host(machine: &mut Machine) -> anyhow::Result<Outcome> {
    let before = Footprint::now(machine)?;
    let mut pairs = stalled_pairs(machine)?;
    let mut jobs = Vec::new();
    for (seed, pair) in (100..).zip(&pairs) {
        let range = range(seed, MUCH, 64 << 10);
        jobs.push((machine.guest().send(pair.guest, range)?, range));
    }
    let taken = at_rest(machine, &pairs)?;
    ensure!(taken < MUCH * STALLED as u64, "writes never block");
    let figure = watch(machine, before)?;
    let mut threads = Vec::new();
    for (pair, (_, range)) in pairs.drain(..).zip(&jobs) {
        let (Pair { mut host, guest }, range) = (pair, *range);
        threads.push(thread::spawn(move || {
            receive(&mut *host.reader, range).map(|()| (host, guest))
        }));
    }
    for (thread, (job, range)) in threads.into_iter().zip(jobs) {
        let (_host, guest) = joined(thread.join())??;
        complete(job.moved()?, range)?;
        machine.guest().close(guest)?;
    }
    before.given_back(machine, SLACK)?;
    Ok(Outcome::Measured(figure))
}

fn slow_guest(machine: &mut Machine) -> anyhow::Result<Outcome> {
    let before = Footprint::now(machine)?;
    let mut threads = Vec::new();
    for (seed, pair) in (200..).zip(stalled_pairs(machine)?) {
        let range = range(seed, MUCH, 64 << 10);
        let Pair { mut host, guest } = pair;
        threads.push(thread::spawn(move || {
            host.writer.set_limit(STUCK)?;
            let sent = transfer::send(&mut host.writer, &range.into());
            let error = sent.end.err().map(|error| error.kind());
            ensure!(
                error == Some(ErrorKind::TimedOut),
                "expected a write to time out, found {error:?}"
            );
            Ok((
                host,
                guest,
                Range {
                    len: sent.count,
                    ..range
                },
            ))
        }));
    }
    let mut stuck = Vec::new();
    for thread in threads {
        stuck.push(joined(thread.join())??);
    }
    let figure = watch(machine, before)?;
    let mut jobs = Vec::new();
    for (_, guest, range) in &stuck {
        jobs.push((machine.guest().receive(*guest, *range)?, *range));
    }
    for (job, range) in jobs {
        complete(job.moved()?, range)?;
    }
    for (host, guest, _) in stuck {
        drop(host);
        machine.guest().close(guest)?;
    }
    before.given_back(machine, SLACK)?;
    Ok(Outcome::Measured(figure))
}

/// Waits until the guest's sockets accept no more bytes. Returns how many they have accepted.
pub(crate) fn at_rest(machine: &Machine, pairs: &[Pair]) -> anyhow::Result<u64> {
    let (mut last, mut same) = (0, 0);
    let sum = wait_until(LIMIT, || {
        let mut sum = 0;
        for pair in pairs {
            sum += machine.guest().progress(pair.guest)?;
        }
        same = if sum == last { same + 1 } else { 0 };
        last = sum;
        Ok((same == 20).then_some(sum))
    })?;
    sum.context("bytes are accepted without limit")
}

fn stalled_pairs(machine: &mut Machine) -> anyhow::Result<Vec<Pair>> {
    (0..STALLED)
        .map(|turn| connect(machine, Opener::BOTH[turn % 2]))
        .collect()
}

/// Checks, while everything is stalled, the device's memory and processor use, and that another
/// connection works.
fn watch(machine: &mut Machine, before: Footprint) -> anyhow::Result<String> {
    let kept = before.more(machine)?.bytes;
    let limit = STALLED as u64 * KEPT + SLACK;
    ensure!(
        kept <= limit,
        "the device keeps {kept} bytes for {STALLED} stalled connections"
    );
    let burnt = machine.idle_share(WATCHED)?;
    ensure!(
        burnt <= IDLE,
        "the device uses {burnt:.2} of a core while everything is stalled"
    );
    let neighbour = connect(machine, Opener::Guest)?;
    requests(machine, neighbour, 64, 200, 1).context("a neighbour")?;
    let more = before.more(machine)?.bytes;
    ensure!(
        more <= kept + SLACK,
        "the device grew from {kept} to {more} bytes"
    );
    Ok(format!(
        "{} KiB for {STALLED} connections, {:.1} % of a core",
        kept >> 10,
        burnt * 100.0
    ))
}
