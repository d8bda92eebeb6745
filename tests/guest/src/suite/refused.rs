// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Connections to a port without a listener are refused immediately, not by a timeout.

use std::io::ErrorKind;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use vsock_guest_program::job::{Failure, Job, Options};

use super::{Outcome, Test, echo};
use crate::guest::{Guest, HOST};
use crate::machine::Machine;

pub(super) const TESTS: &[Test] = &[
    Test::new(
        "g3_a_host_port_without_a_listener_is_reset_immediately",
        no_host,
    ),
    Test::new("g3_an_unknown_cid_is_reset_immediately", no_cid),
    Test::new("a_port_whose_server_is_gone_is_reset_immediately", stale),
    Test::new(
        "a_guest_port_without_a_listener_is_refused_immediately",
        no_guest,
    ),
    Test::new("a_refused_port_works_after_a_listener_starts", served_later),
];

/// "Immediately", on a loaded machine. The guest would wait for ten seconds.
const AT_ONCE: Duration = Duration::from_secs(2);

fn no_host(machine: &mut Machine) -> anyhow::Result<Outcome> {
    let port = machine.port();
    for _ in 0..20 {
        reset_immediately(machine.guest(), HOST, port)?;
    }
    Ok(Outcome::Passed)
}

fn no_cid(machine: &mut Machine) -> anyhow::Result<Outcome> {
    let (cid, port) = (machine.cid() + 1, machine.port());
    reset_immediately(machine.guest(), cid, port)?;
    Ok(Outcome::Passed)
}

/// The socket's file still exists, as after a crash.
fn stale(machine: &mut Machine) -> anyhow::Result<Outcome> {
    if machine.device().process().is_none() {
        return Ok(Outcome::NotOffered("no files"));
    }
    let port = machine.port();
    let file = machine.directory().join(format!("uds_{port}"));
    drop(UnixListener::bind(file)?);
    reset_immediately(machine.guest(), HOST, port)?;
    Ok(Outcome::Passed)
}

/// Checks that a connection from the guest is reset without a wait.
pub(super) fn reset_immediately(guest: &Guest, cid: u32, port: u32) -> anyhow::Result<()> {
    const ECONNRESET: i32 = 104;
    let options = Options::default();
    let result = guest.start(Job::Connect { cid, port, options })?;
    let Err(error) = result.wait() else {
        bail!("the guest is connected to a port without a listener");
    };
    let failure = error.downcast_ref::<Failure>().context("no answer")?;
    let time = Duration::from_nanos(failure.nanos);
    ensure!(
        time < AT_ONCE && failure.errno == Some(ECONNRESET),
        "{failure}, after {time:.1?}"
    );
    Ok(())
}

fn no_guest(machine: &mut Machine) -> anyhow::Result<Outcome> {
    let port = machine.port();
    for _ in 0..20 {
        let start = Instant::now();
        let Err(error) = machine.host().connect(port) else {
            bail!("the host is connected to a port without a listener");
        };
        let time = start.elapsed();
        ensure!(
            time < AT_ONCE && error.kind() == ErrorKind::ConnectionRefused,
            "{error} after {time:.1?}"
        );
    }
    Ok(Outcome::Passed)
}

fn served_later(machine: &mut Machine) -> anyhow::Result<Outcome> {
    let port = machine.port();
    let refused = machine.guest().connect(port).is_err();
    ensure!(refused, "connected to a port without a listener");
    let listener = machine.host().listen(port)?;
    let guest = machine.guest().connect(port)?;
    drop(listener.accept()?);
    machine.guest().close(guest)?;
    echo::works(machine)?;
    Ok(Outcome::Passed)
}
