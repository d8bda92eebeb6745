// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Linux's own vsock tests between two guests: each test runs alone, with the first guest in either
//! role. The two sides synchronise over a network, which does not use the device.

mod limits;
mod table;

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use vsock_guest_program::job::{Answer, Failure, Job, ProgramOutput};

use self::table::{Row, Table, Verdict};
use crate::guest::{Guest, Pending};
use crate::image::VSOCK_TEST;
use crate::kernel::{Case, VsockTest};
use crate::machine::{Guests, Machine, Parts};
use crate::processes::Processes;

/// The limit of a test, whose own limit is ten seconds for each step. Some steps have none.
const LIMIT: Duration = Duration::from_secs(40);
/// The guests' network addresses.
const FIRST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const SIBLING: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
/// What a side reports after the other side has failed.
const OTHER: &str = "control socket";

/// The first guest's role in a test. The sibling has the other role.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Role {
    Client,
    Server,
}

impl Role {
    const BOTH: [Self; 2] = [Self::Client, Self::Server];

    const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}

/// Runs every test whose name contains the filter. Returns whether every failure was a known one.
pub(crate) fn run(parts: &Parts, tests: &VsockTest, filter: &str) -> anyhow::Result<bool> {
    let cases = tests.cases.iter().filter(|case| case.name.contains(filter));
    let cases: Vec<&Case> = cases.collect();
    if cases.is_empty() {
        bail!("no test of vsock_test has {filter} in its name");
    }
    let (device, kernel) = (parts.kind.name(), parts.image.version.name());
    println!(
        "\nvsock_test of {}, device: {device}, kernel: {kernel}",
        tests.source
    );
    let (mut table, mut machine) = (Table::default(), None);
    for case in cases {
        for role in Role::BOTH {
            let ready = machine.take().map_or_else(|| start(parts), Ok)?;
            let begun = Instant::now();
            let result = one(&ready, case, role);
            let verdict = limits::judge(&case.name, ready.release(), result);
            let row = Row {
                case: case.clone(),
                role: role.name(),
                time: begun.elapsed(),
                verdict,
            };
            println!("{row}");
            // What a failed test leaves behind could disturb the next one.
            if matches!(row.verdict, Verdict::Passed(_)) {
                machine = Some(ready);
            }
            table.rows.push(row);
        }
    }
    println!("\n{table}");
    Ok(table.passed())
}

/// Boots two guests that reach each other over a network.
fn start(parts: &Parts) -> anyhow::Result<Machine> {
    let machine = Machine::start(parts, Guests::Networked, &Processes::default())?;
    machine.guest().run(Job::SetAddress(FIRST))?;
    machine.sibling()?.run(Job::SetAddress(SIBLING))?;
    Ok(machine)
}

/// Runs a test. Returns what both sides printed if it passes.
fn one(machine: &Machine, case: &Case, role: Role) -> anyhow::Result<Vec<String>> {
    const PORT: u16 = 1_234;
    let first = (machine.guest(), machine.cid(), FIRST);
    let sibling = (machine.sibling()?, machine.sibling_cid(), SIBLING);
    let (client, server) = match role {
        Role::Client => (first, sibling),
        Role::Server => (sibling, first),
    };
    let serving = part(server.0, case, &["--mode=server"], client.1, PORT)?;
    // A client that connects before the server listens would fail.
    server.0.run(Job::Listened(PORT))?;
    let host = format!("--control-host={}", server.2);
    let connecting = part(client.0, case, &["--mode=client", &host], server.1, PORT)?;
    let parts = [
        ("client", output_of(connecting)),
        ("server", output_of(serving)),
    ];
    let mut notes = Vec::new();
    let mut failures = Vec::new();
    for (name, part) in parts {
        match part {
            Ok(output) => notes.extend(output.err.lines().map(str::to_owned)),
            Err(error) => failures.push(format!("{name}: {error}")),
        }
    }
    // Report the side that failed by itself. Its peer only notices that the control connection
    // broke.
    let own = |failure: &&String| !failure.contains(OTHER);
    match failures.iter().find(own).or_else(|| failures.first()) {
        Some(failure) => bail!("{failure}"),
        None => Ok(notes),
    }
}

/// Starts one side of a test.
fn part(
    guest: &Guest,
    case: &Case,
    mode: &[&str],
    peer: u32,
    port: u16,
) -> anyhow::Result<Pending> {
    let mut arguments: Vec<String> = mode.iter().map(|&word| word.to_owned()).collect();
    arguments.push(format!("--control-port={port}"));
    arguments.push(format!("--peer-cid={peer}"));
    arguments.push(format!("--pick={}", case.id));
    let program = format!("/{VSOCK_TEST}");
    guest.start(Job::Run { program, arguments })
}

/// Returns a side's output, or the message with which it failed.
fn output_of(part: Pending) -> anyhow::Result<ProgramOutput> {
    match part.wait_for(LIMIT) {
        Ok(Answer::Output(output)) => Ok(output),
        Ok(other) => bail!("the guest answered {other:?}"),
        Err(error) => match error.downcast::<Failure>() {
            Ok(failure) => bail!("{}", failure.text.replace('\n', " | ")),
            Err(error) => Err(error).context("the test did not end"),
        },
    }
}
