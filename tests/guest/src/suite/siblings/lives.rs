// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One of two siblings ends during transfers. The other learns of it on every connection, keeps its
//! connections with the host, and can talk to the next guest.

use anyhow::{Context, ensure};
use vsock_guest_program::job::{End, Options};

use super::links::{Link, Route, routes};
use super::works;
use crate::bytes::range;
use crate::child::wait_until;
use crate::device::LIMIT;
use crate::guest::Pending;
use crate::machine::Machine;
use crate::suite::{Outcome, Test, echo};

pub(in crate::suite) const TESTS: &[Test] = &[
    Test::new("siblings_learn_that_one_reboots", |machine| {
        goes(machine, Machine::reboot)
    })
    .within(120)
    .of_siblings(),
    Test::new("siblings_learn_that_one_is_killed", |machine| {
        goes(machine, Machine::replace_guest)
    })
    .within(120)
    .of_siblings(),
];

/// The guest that opened a connection.
#[derive(Clone, Copy, Debug)]
enum Opener {
    Leaves,
    Stays,
}

/// More than can arrive before the connection ends.
const ENDLESS: u64 = 1 << 40;
/// Bytes that the remaining guest has moved on each connection before the end.
const BEFORE: u64 = 256 << 10;

/// The first guest ends during transfers and boots again.
fn goes(
    machine: &mut Machine,
    go: impl FnOnce(&mut Machine) -> anyhow::Result<()>,
) -> anyhow::Result<Outcome> {
    let jobs = under_way(machine)?;
    go(machine)?;
    for (what, job) in jobs {
        let moved = job
            .moved()
            .with_context(|| format!("{what} does not end"))?;
        let is_over = matches!(moved.end, End::Closed | End::Error(_));
        ensure!(is_over && moved.wrong.is_none(), "{what}: {moved:?}");
    }
    works(machine)?;
    echo::works(machine)?;
    Ok(Outcome::Passed)
}

/// Opens three connections from each guest, on which the remaining guest sends, receives and waits.
/// Returns its jobs.
fn under_way(machine: &mut Machine) -> anyhow::Result<Vec<(&'static str, Pending)>> {
    let ports = [(); 3].map(|()| machine.port());
    let [leaving, staying] = routes(machine)?;
    let endless = range(95, ENDLESS, 64 << 10);
    let (mut jobs, mut busy) = (Vec::new(), Vec::new());
    for opener in [Opener::Leaves, Opener::Stays] {
        // Each link is from the remaining guest's point of view.
        let open = |port| match opener {
            Opener::Leaves => Link::open(leaving, port, Options::default()).map(Link::back),
            Opener::Stays => Link::open(staying, port, Options::default()),
        };
        let [up, down, idle] = [open(ports[0])?, open(ports[1])?, open(ports[2])?];
        let Route {
            from: stays,
            to: leaves,
        } = staying;
        jobs.push(("a writer", stays.guest.send(up.from, endless)?));
        jobs.push(("a reader", stays.guest.receive(down.from, endless)?));
        jobs.push((
            "a reader that waits",
            stays.guest.receive(idle.from, endless)?,
        ));
        // These jobs end with their guest.
        drop(leaves.guest.receive(up.to, endless)?);
        drop(leaves.guest.send(down.to, endless)?);
        busy.extend([up.from, down.from]);
    }
    let far = wait_until(LIMIT, || {
        let moved = busy.iter().map(|end| staying.from.guest.progress(*end));
        let moved: Vec<u64> = moved.collect::<anyhow::Result<_>>()?;
        Ok(moved.iter().all(|moved| *moved >= BEFORE).then_some(()))
    })?;
    far.context("the transfers do not start")?;
    Ok(jobs)
}
