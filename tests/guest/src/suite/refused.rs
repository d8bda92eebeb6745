// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Connections that nobody takes are refused at once, not left to a timeout.

use std::io::ErrorKind;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use vsock_guest_program::job::{Failure, Job, Options};

use super::{Outcome, Test, echo};
use crate::guest::{Guest, HOST};
use crate::machine::Machine;

pub(super) const TESTS: &[Test] = &[
    Test::new("g3_a_port_that_no_host_serves_is_reset_at_once", no_host),
    Test::new("g3_a_cid_that_nobody_has_is_reset_at_once", no_cid),
    Test::new("a_port_whose_server_is_gone_is_reset_at_once", stale),
    Test::new("a_port_that_no_guest_serves_is_refused_at_once", no_guest),
    Test::new("a_refused_port_works_once_it_is_served", served_later),
];

/// "At once", on a loaded machine. The guest waits for ten seconds.
const AT_ONCE: Duration = Duration::from_secs(2);

fn no_host(machine: &mut Machine) -> anyhow::Result<Outcome> {
    let port = machine.port();
    for _ in 0..20 {
        reset_at_once(machine.guest(), HOST, port)?;
    }
    Ok(Outcome::Passed)
}

fn no_cid(machine: &mut Machine) -> anyhow::Result<Outcome> {
    let (cid, port) = (machine.cid() + 1, machine.port());
    reset_at_once(machine.guest(), cid, port)?;
    Ok(Outcome::Passed)
}

/// The socket's file is there, as after a crash.
fn stale(machine: &mut Machine) -> anyhow::Result<Outcome> {
    if machine.device().process().is_none() {
        return Ok(Outcome::NotOffered("no files"));
    }
    let port = machine.port();
    let file = machine.directory().join(format!("uds_{port}"));
    drop(UnixListener::bind(file)?);
    reset_at_once(machine.guest(), HOST, port)?;
    Ok(Outcome::Passed)
}

/// A guest that connects there is refused before it has waited.
pub(super) fn reset_at_once(guest: &Guest, cid: u32, port: u32) -> anyhow::Result<()> {
    const ECONNRESET: i32 = 104;
    let options = Options::default();
    let result = guest.start(Job::Connect { cid, port, options })?;
    let Err(error) = result.wait() else {
        bail!("the guest is connected to a port that nobody serves");
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
            bail!("the host is connected to a port that nobody serves");
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
    ensure!(refused, "connected to a port that nobody serves");
    let listener = machine.host().listen(port)?;
    let guest = machine.guest().connect(port)?;
    drop(listener.accept()?);
    machine.guest().close(guest)?;
    echo::works(machine)?;
    Ok(Outcome::Passed)
}
