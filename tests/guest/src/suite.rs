// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The tests and their runner. Tests share one boot; each has a deadline. After a failure the next
//! test gets a fresh machine.

mod backlog;
mod buffers;
mod bulk;
mod capture;
mod echo;
mod halves;
mod life;
pub(crate) mod many;
pub(crate) mod pairs;
mod pause;
mod refused;
mod restarts;
mod rpc;
mod seqpacket;
mod siblings;
pub(crate) mod slow;
mod ssh;
mod transfers;

use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail};

use crate::machine::{Guests, Machine, Parts};
use crate::processes::Processes;
use crate::table::{Row, Table};

/// A test: the claim, and how long the check may take.
#[derive(Clone, Copy)]
pub(crate) struct Test {
    pub(crate) name: &'static str,
    guests: Guests,
    limit: Duration,
    run: fn(&mut Machine) -> anyhow::Result<Outcome>,
}

impl Test {
    /// A test that must finish within a minute.
    const fn new(name: &'static str, run: fn(&mut Machine) -> anyhow::Result<Outcome>) -> Self {
        Self {
            name,
            guests: Guests::One,
            limit: Duration::from_secs(60),
            run,
        }
    }

    /// Adds a second guest on the same device.
    const fn of_siblings(mut self) -> Self {
        self.guests = Guests::Siblings;
        self
    }

    const fn within(mut self, seconds: u64) -> Self {
        self.limit = Duration::from_secs(seconds);
        self
    }
}

/// The result of a test that did not fail.
#[derive(Debug)]
pub(crate) enum Outcome {
    Passed,
    /// Passed, with a figure worth reading.
    Measured(String),
    /// The device does not offer what is tested.
    NotOffered(&'static str),
}

/// The result of a test that kills the device's process, for a device in this process.
const NO_PROCESS: Outcome = Outcome::NotOffered("the device is this process");

/// All tests, in the order in which they run.
pub(crate) fn tests() -> Vec<Test> {
    [
        echo::TESTS,
        bulk::TESTS,
        halves::TESTS,
        refused::TESTS,
        backlog::TESTS,
        buffers::TESTS,
        seqpacket::TESTS,
        slow::TESTS,
        rpc::TESTS,
        many::TESTS,
        pause::TESTS,
        restarts::TESTS,
        life::TESTS,
        ssh::TESTS,
        capture::TESTS,
        siblings::TESTS,
        siblings::lives::TESTS,
    ]
    .concat()
}

/// Runs every test whose name contains the filter and none of `skipped`. Returns whether none
/// failed.
pub(crate) fn run(parts: &Parts, filter: &str, skipped: &[String]) -> anyhow::Result<bool> {
    let processes = Processes::default();
    let mut table = Table::default();
    let mut machine = None;
    let tests: Vec<Test> = tests()
        .into_iter()
        .filter(|test| test.name.contains(filter))
        .filter(|test| !skipped.iter().any(|part| test.name.contains(part)))
        .collect();
    if tests.is_empty() {
        bail!("no test that is not skipped has {filter} in its name; --list shows them");
    }
    let kernel = parts.image.version.name();
    println!("\ndevice: {}, kernel: {kernel}", parts.kind.name());
    for test in tests {
        let start = Instant::now();
        let result = match machine
            .take()
            .filter(|machine: &Machine| machine.guests() == test.guests)
            .map_or_else(|| Machine::start(parts, test.guests, &processes), Ok)
        {
            Ok(ready) => watched(test, ready, &processes).map(|(ready, outcome)| {
                machine = Some(ready);
                outcome
            }),
            // A machine that does not start now would not start for the next test either.
            Err(error) => return Err(error.context("no machine to run on")),
        };
        let row = Row {
            name: test.name,
            time: start.elapsed(),
            result: result.map_err(|error| format!("{error:#}")),
        };
        println!("{row}");
        table.rows.push(row);
    }
    println!("\n{table}");
    Ok(table.passed())
}

/// Runs a test, and kills its machine when the time is up.
fn watched(
    test: Test,
    mut machine: Machine,
    processes: &Processes,
) -> anyhow::Result<(Machine, Outcome)> {
    let (done, watch) = channel();
    let runner = thread::spawn(move || {
        let result = (test.run)(&mut machine).and_then(|outcome| match machine.casualty() {
            None => Ok(outcome),
            Some(death) => Err(anyhow!(death)),
        });
        let result = result.map_err(|error| match machine.casualty() {
            None => error,
            Some(death) => error.context(death),
        });
        _ = done.send(());
        result.map(|outcome| (machine, outcome))
    });
    let late = watch.recv_timeout(test.limit).is_err() && !runner.is_finished();
    if late {
        // Every wait in a test either has a limit or is for one of these processes.
        processes.kill();
    }
    let result = runner.join().map_err(|_| anyhow!("the test panicked"))?;
    if late {
        bail!("not done after {} seconds", test.limit.as_secs());
    }
    result
}
