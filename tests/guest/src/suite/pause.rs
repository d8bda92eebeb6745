// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Guests that are paused, as by `virsh suspend`, and resumed. No connection and no byte is lost.

use std::thread;

use anyhow::{Context, ensure};
use vsock_guest_program::job::{Content, Range};

use super::pairs::{Opener, Pair, connect, open};
use super::transfers::Transfers;
use super::{Outcome, Test, echo};
use crate::bytes::{HostEnd, closed, complete, ended, joined, range, send};
use crate::machine::Machine;

pub(super) const TESTS: &[Test] = &[
    Test::new("t108_a_host_writes_while_the_guest_is_paused", idle),
    Test::new(
        "t108_a_host_closes_while_the_guest_is_paused",
        closed_meanwhile,
    ),
    Test::new(
        "t108_a_host_connects_while_the_guest_is_paused",
        connected_meanwhile,
    ),
    Test::new("t108_a_pause_during_transfers_loses_nothing", under_way),
    Test::new("t108_fifty_pauses_under_load_lose_nothing", fifty).within(120),
];

/// Less than a direction buffers, so that the host need not wait for the guest.
const MESSAGE: Range = range(51, 60_000, 10_000);
const PAUSES: u32 = 50;
/// Bytes that each connection moves between two pauses, in both directions together.
const BETWEEN: u64 = 256 << 10;

/// A reader in the guest is already waiting when the pause begins.
fn idle(machine: &mut Machine) -> anyhow::Result<Outcome> {
    for opener in Opener::BOTH {
        let mut pair = connect(machine, opener)?;
        let received = machine.guest().receive(pair.guest, MESSAGE)?;
        machine.monitor().pause()?;
        let written = send(&mut *pair.host.writer, MESSAGE);
        machine.monitor().resume()?;
        written.context("during the pause")?;
        complete(received.moved()?, MESSAGE).context("the reader in the guest")?;
        lives(machine, &mut pair).context("after the pause")?;
        machine.guest().close(pair.guest)?;
        let end = ended(&mut *pair.host.reader)?;
        ensure!(
            end == HostEnd::Closed,
            "expected a graceful end, found a reset"
        );
    }
    echo::works(machine)?;
    Ok(Outcome::Passed)
}

fn closed_meanwhile(machine: &mut Machine) -> anyhow::Result<Outcome> {
    for opener in Opener::BOTH {
        let Pair { mut host, guest } = connect(machine, opener)?;
        let all = Content::Bytes(MESSAGE);
        let received = machine.guest().receive(guest, all.one_more())?;
        machine.monitor().pause()?;
        let written = send(&mut *host.writer, MESSAGE).and_then(|()| host.writer.finish());
        machine.monitor().resume()?;
        written.context("during the pause")?;
        closed(received.moved()?, MESSAGE).context("the reader in the guest")?;
        machine.guest().close(guest)?;
    }
    Ok(Outcome::Passed)
}

fn connected_meanwhile(machine: &mut Machine) -> anyhow::Result<Outcome> {
    let port = machine.port();
    let listener = machine.guest().listen(port)?;
    let host = machine.host();
    machine.monitor().pause()?;
    let connecting = thread::spawn(move || host.connect(port));
    machine.monitor().resume()?;
    let host = joined(connecting.join())?.context("the host cannot connect")?;
    let guest = machine.guest().accept(listener)?;
    machine.guest().close(listener)?;
    lives(machine, &mut Pair { host, guest })?;
    machine.guest().close(guest)?;
    Ok(Outcome::Passed)
}

fn under_way(machine: &mut Machine) -> anyhow::Result<Outcome> {
    let pairs = open(machine, 4)?;
    let transfers = Transfers::start(machine, pairs, 8 << 20)?;
    transfers.wait_for_progress(machine, BETWEEN)?;
    ensure!(transfers.is_under_way(), "all was done before the pause");
    machine.monitor().pause()?;
    machine.monitor().resume()?;
    for mut pair in transfers.finish()? {
        lives(machine, &mut pair)?;
        machine.guest().close(pair.guest)?;
    }
    Ok(Outcome::Passed)
}

fn fifty(machine: &mut Machine) -> anyhow::Result<Outcome> {
    let mut pairs = open(machine, 4)?;
    let (mut pauses, mut rounds) = (0, 0);
    while pauses < PAUSES {
        let transfers = Transfers::start(machine, pairs, 8 << 20)?;
        while transfers.is_under_way() {
            machine.monitor().pause()?;
            machine.monitor().resume()?;
            pauses += 1;
            transfers.wait_for_progress(machine, BETWEEN)?;
        }
        pairs = transfers
            .finish()
            .with_context(|| format!("after {pauses} pauses"))?;
        rounds += 1;
    }
    for pair in pairs {
        machine.guest().close(pair.guest)?;
    }
    echo::works(machine)?;
    Ok(Outcome::Measured(format!("{pauses} in {rounds} rounds")))
}

/// Checks that bytes still go both ways on a connection.
fn lives(machine: &Machine, pair: &mut Pair) -> anyhow::Result<()> {
    pair.send_to_host(machine, range(52, 300_000, 10_000))?;
    pair.send_to_guest(machine, range(53, 300_000, 10_000))
}
