// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Guests and devices that end and are replaced.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use vsock_guest_program::job::{Failure, Job};

use super::pairs::{Opener, Pair, open};
use super::{NO_PROCESS, Outcome, Test, echo};
use crate::bytes::ended;
use crate::child::{Child, describe, wait_until};
use crate::device::LIMIT;
use crate::machine::Machine;
use crate::qemu::Extra;

pub(super) const TESTS: &[Test] = &[
    Test::new("another_guest_is_served_after_one_is_killed", guest_killed).within(120),
    Test::new(
        "g6_without_descriptors_the_device_refuses_and_continues",
        exhausted,
    )
    .within(150),
    Test::new("another_device_serves_after_one_is_killed", device_killed).within(120),
    Test::new("g8_a_device_survives_packed_rings", packed).within(150),
    Test::new("a_device_that_is_terminated_cleans_up", terminated).within(120),
];

/// The descriptor limit of a device that is to reach it.
const FEW: u64 = 200;

fn guest_killed(machine: &mut Machine) -> anyhow::Result<Outcome> {
    let before = machine.device().descriptors()?;
    let pairs = open(machine, 2)?;
    machine.kill_guest();
    all_end(pairs).context("connections of the killed guest")?;
    machine.boot()?;
    echo::works(machine)?;
    let now = machine.device().descriptors()?;
    ensure!(now <= before + 4, "{before} descriptors became {now}");
    Ok(Outcome::Passed)
}

fn device_killed(machine: &mut Machine) -> anyhow::Result<Outcome> {
    replaced(machine, |_, process| {
        process.kill();
        Ok(())
    })
}

fn terminated(machine: &mut Machine) -> anyhow::Result<Outcome> {
    replaced(machine, |machine, process| {
        let status = process.terminate(LIMIT)?;
        ensure!(status.success(), "the device {}", describe(status));
        for name in ["vhu.sock", "uds"] {
            let left = machine.directory().join(name).exists();
            ensure!(!left, "the socket {name} still exists");
        }
        Ok(())
    })
}

/// The device ends and its connections end. Another device on the same paths serves the next guest.
fn replaced(
    machine: &mut Machine,
    end: impl FnOnce(&Machine, &Child) -> anyhow::Result<()>,
) -> anyhow::Result<Outcome> {
    let Some(process) = machine.device().process().cloned() else {
        return Ok(NO_PROCESS);
    };
    let pairs = open(machine, 2)?;
    end(machine, &process)?;
    all_end(pairs).context("connections of the device that has ended")?;
    machine.kill_guest();
    machine.restart_device()?;
    machine.boot()?;
    echo::works(machine)?;
    Ok(Outcome::Passed)
}

/// A front-end lets the guest choose packed rings without asking the device.
fn packed(machine: &mut Machine) -> anyhow::Result<Outcome> {
    machine.kill_guest();
    machine.boot_unseen(Extra {
        device: ",packed=on",
        ..Extra::default()
    })?;
    let came_up = machine.guest().hello(Duration::from_secs(30)).is_ok();
    let worked = came_up && echo::works(machine).is_ok();
    if let Some(process) = machine.device().process() {
        if let Some(status) = process.ended() {
            anyhow::bail!("the device {}: {}", describe(status), process.log_tail());
        }
    }
    machine.replace_guest()?;
    echo::works(machine).context("the next guest, with split rings")?;
    Ok(Outcome::Measured(
        if worked { "served" } else { "refused" }.to_owned(),
    ))
}

fn exhausted(machine: &mut Machine) -> anyhow::Result<Outcome> {
    let Some(process) = machine.device().process() else {
        return Ok(NO_PROCESS);
    };
    // Set the limit only now: a program that finds a low limit at its start may raise it.
    let device = process.id();
    let before = limit_descriptors(device, Some(FEW))?;
    until_refused(machine)?;
    echo::works(machine).context("after descriptors are free again")?;
    limit_descriptors(device, before)?;
    Ok(Outcome::Passed)
}

/// Opens connections until the device has no more descriptors, and checks how it refuses them.
fn until_refused(machine: &mut Machine) -> anyhow::Result<()> {
    const AT_ONCE: Duration = Duration::from_secs(3);
    let port = machine.port();
    let listener = machine.host().listen(port)?;
    let mut opened = Vec::new();
    let failure = loop {
        ensure!(opened.len() < 400, "the descriptor limit is not reached");
        match machine.guest().connect(port) {
            Ok(guest) => opened.push((guest, listener.accept()?)),
            Err(error) => break error.downcast::<Failure>()?,
        }
    };
    let time = Duration::from_nanos(failure.nanos);
    ensure!(
        time < AT_ONCE,
        "a guest at the limit waits {time:.1?}: {failure}"
    );
    let served = machine.port();
    let service = machine.guest().listen(served)?;
    let serving = machine.guest().start(Job::Serve(service.socket))?;
    let start = Instant::now();
    let refused = machine.host().connect(served).is_err();
    ensure!(
        refused && start.elapsed() < AT_ONCE,
        "a host at the limit waits {:.1?}",
        start.elapsed()
    );
    let burnt = machine.idle_share(Duration::from_secs(1))?;
    ensure!(burnt < 0.2, "it uses {burnt:.2} of a core at the limit");
    for (guest, stream) in opened {
        drop(stream);
        machine.guest().close(guest)?;
    }
    machine.guest().close(service)?;
    serving.wait()?;
    wait_until(LIMIT, || {
        Ok((machine.device().descriptors()? < 100).then_some(()))
    })?
    .context("descriptors stay open")
}

/// Sets a process's soft limit and returns the previous one.
fn limit_descriptors(process: u32, soft: Option<u64>) -> anyhow::Result<Option<u64>> {
    let pid = Pid::from_raw(process.try_into()?).context("the process identifier is zero")?;
    let hard = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit {
        current: soft,
        maximum: hard,
    };
    let before = prlimit(Some(pid), Resource::Nofile, limit).context("cannot set its limit")?;
    Ok(before.current)
}

/// Checks that the host learns of the end of every connection that [`open`] made.
fn all_end(pairs: Vec<Pair>) -> anyhow::Result<()> {
    for (pair, opener) in pairs.into_iter().zip(Opener::BOTH) {
        let mut host = pair.host;
        ended(&mut *host.reader).with_context(|| format!("the {opener:?} had connected"))?;
    }
    Ok(())
}
