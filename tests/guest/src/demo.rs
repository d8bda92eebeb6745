// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The main job with a real guest: bytes go from a host component through the device to an echo
//! service in the guest, and come back.

mod table;

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use vsock_guest_program::job::Job;
use vsock_report::{CommonDigest, Payload, Progress, Trip, expect_end, there_and_back};

use crate::device::Stream;
use crate::machine::{Guests, Machine, Parts};
use crate::processes::Processes;
use crate::suite::pairs::{Opener, connect};

/// An echo service that does not end within this time is stuck.
const LIMIT: Duration = Duration::from_secs(600);

/// Sends the file this many times, over connections from either side, and prints what that took.
pub(crate) fn run(parts: &Parts, file: Option<&Path>, rounds: u32) -> anyhow::Result<()> {
    let payload = Payload::new(file)?;
    let name = parts.kind.name();
    println!(
        "Sending {payload} to an echo service in a Linux guest and back, {rounds} times each way."
    );
    let mut machine = Machine::start(parts, Guests::One, &Processes::default())?;
    println!("Guest: Linux {}. Device: {name}.", machine.release());
    let progress = Progress::of_bytes(payload.len() * 2 * u64::from(rounds));
    let mut lines = Opener::BOTH.map(|opener| (opener, Vec::new()));
    let mut digest = CommonDigest::default();
    for _ in 0..rounds {
        for (opener, rounds) in &mut lines {
            let round = round(&mut machine, *opener, &payload, &progress)
                .with_context(|| format!("when the {opener:?} connects"))?;
            digest.add(round.trip.digest)?;
            rounds.push(round);
        }
    }
    progress.finish();
    println!("{digest}\n");
    print!("{}", table::text(payload.len(), name, &lines));
    Ok(())
}

/// What a round took.
#[derive(Clone, Copy, Debug)]
struct Round {
    trip: Trip,
    /// Seconds of the device on a core.
    device: f64,
}

fn round(
    machine: &mut Machine,
    opener: Opener,
    payload: &Payload,
    progress: &Progress,
) -> anyhow::Result<Round> {
    let pair = connect(machine, opener)?;
    let service = machine.guest().start(Job::Echo(pair.guest.socket))?;
    let Stream {
        mut reader,
        mut writer,
    } = pair.host;
    let before = machine.device().usage()?;
    let mut source = payload.open()?;
    let trip = there_and_back(&mut *source, &mut *writer, &mut *reader, progress)?;
    writer.finish().context("cannot end the stream")?;
    expect_end(&mut *reader)?;
    let device = (machine.device().usage()? - before).cpu;
    service.wait_for(LIMIT)?;
    machine.guest().close(pair.guest)?;
    Ok(Round { trip, device })
}
