// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The main job with a real guest: a file goes from a host component through the device to an echo
//! service in the guest, and comes back.

mod table;

use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use vsock_guest_program::job::Job;
use vsock_report::{Digest, Progress, read, receive};

use crate::bytes::joined;
use crate::device::{Stream, Writer};
use crate::machine::{Guests, Machine, Parts};
use crate::processes::Processes;
use crate::suite::pairs::{Opener, connect};

/// A guest that echoes nothing for so long is stuck.
const LIMIT: Duration = Duration::from_secs(600);

/// Sends the file this many times each way, and shows what came of it.
pub(crate) fn run(parts: &Parts, file: Option<&Path>, rounds: u32) -> anyhow::Result<()> {
    let path = file.map_or_else(own_file, |path| Ok(path.to_owned()))?;
    let bytes = read(&path)?;
    let sent = Digest::of(&bytes);
    let name = parts.kind.name();
    println!("file      {}", path.display());
    println!("bytes     {}, there and back", bytes.len());
    println!("way       host component -> {name} -> driver of a Linux guest -> echo -> back");
    let mut machine = Machine::start(parts, Guests::One, &Processes::default())?;
    println!("guest     Linux {}", machine.release());
    let progress = Progress::of_bytes(bytes.len() as u64 * 2 * u64::from(rounds));
    let mut lines = Opener::BOTH.map(|opener| (opener, Vec::new()));
    for _ in 0..rounds {
        for (opener, rounds) in &mut lines {
            let (round, back) = there_and_back(&mut machine, *opener, &bytes, &progress)
                .with_context(|| format!("when the {opener:?} connects"))?;
            sent.check(&back)?;
            rounds.push(round);
        }
    }
    progress.finish();
    println!("SHA-256   {sent}, the same on both sides in every round\n");
    print!("{}", table::text(bytes.len(), name, &lines));
    Ok(())
}

/// What a round took.
#[derive(Clone, Copy, Debug)]
struct Round {
    seconds: f64,
    /// Seconds of the device on a core.
    device: f64,
}

fn there_and_back(
    machine: &mut Machine,
    opener: Opener,
    bytes: &[u8],
    progress: &Progress,
) -> anyhow::Result<(Round, Vec<u8>)> {
    let pair = connect(machine, opener)?;
    let service = machine.guest().start(Job::Echo(pair.guest.socket))?;
    let Stream {
        mut reader,
        mut writer,
    } = pair.host;
    let mut back = vec![0; bytes.len()];
    let (start, before) = (Instant::now(), machine.device().usage()?);
    let received = thread::scope(|scope| {
        let sender = scope.spawn(|| send(&mut *writer, bytes));
        let received = receive(&mut *reader, &mut back, progress);
        let sent = joined(sender.join())?;
        sent.context("sending failed")?;
        received.context("receiving failed")
    })?;
    let seconds = start.elapsed().as_secs_f64();
    let device = (machine.device().usage()? - before).cpu;
    ensure!(
        received == bytes.len(),
        "{received} bytes came back, {} were sent",
        bytes.len()
    );
    service.wait_for(LIMIT)?;
    machine.guest().close(pair.guest)?;
    Ok((Round { seconds, device }, back))
}

/// Writes all, and ends the direction.
fn send(writer: &mut dyn Writer, bytes: &[u8]) -> io::Result<()> {
    vsock_report::send(writer, bytes)?;
    writer.finish()
}

/// This program, if no file is named.
fn own_file() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("this program does not know where it is; name a file")
}
