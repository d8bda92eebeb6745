// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The main job with a real guest: a file goes from a host component through the device to an echo
//! service in the guest, and comes back.

mod progress;
mod table;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use sha2::{Digest as _, Sha256};
use vsock_guest_program::job::Job;

use self::progress::Progress;
use self::table::Line;
use crate::device::{Reader, Stream, Writer};
use crate::machine::{Machine, Parts, Processes};
use crate::suite::pairs::{Opener, connect};

/// How much is written or read at once.
const PIECE: usize = 64 * 1024;
/// The file is held in memory twice, so it must not be larger: 1 GiB.
const LARGEST: u64 = 1 << 30;
/// A guest that echoes nothing for so long is stuck.
const LIMIT: Duration = Duration::from_secs(600);

/// Sends the file so many times each way, and shows what came of it.
pub(crate) fn run(parts: &Parts, file: Option<&Path>, rounds: u32) -> anyhow::Result<()> {
    let path = file.map_or_else(own_file, |path| Ok(path.to_owned()))?;
    let bytes = read(&path)?;
    let sent = digest(&bytes);
    let name = parts.kind.name();
    println!("file      {}", path.display());
    println!("bytes     {}, there and back", bytes.len());
    println!("way       host component -> {name} -> driver of a Linux guest -> echo -> back");
    let mut machine = Machine::start(parts, &Processes::default())?;
    println!("guest     Linux {}", machine.release());
    let progress = Progress::new(bytes.len() as u64 * 2 * u64::from(rounds));
    let mut lines = Opener::BOTH.map(|opener| Line::new(opener, name));
    for _ in 0..rounds {
        for line in &mut lines {
            let (round, back) = there_and_back(&mut machine, line.opener, &bytes, &progress)
                .with_context(|| format!("when the {:?} connects", line.opener))?;
            let received = digest(&back);
            ensure!(
                received == sent,
                "what came back is not what was sent: SHA-256 {received} instead of {sent}"
            );
            line.rounds.push(round);
        }
    }
    progress.finish();
    println!("SHA-256   {sent}, the same on both sides in every round\n");
    print!("{}", table::text(bytes.len(), &lines));
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
    let service = machine.guest().start(Job::Echo {
        socket: pair.guest.socket,
    })?;
    let Stream {
        mut reader,
        mut writer,
    } = pair.host;
    let mut back = vec![0; bytes.len()];
    let (start, before) = (Instant::now(), machine.device().usage()?);
    let received = thread::scope(|scope| {
        let sender = scope.spawn(|| send(&mut *writer, bytes));
        let received = receive(&mut *reader, &mut back, progress);
        let sent = sender.join().map_err(|_| anyhow!("the sender panicked"))?;
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
    for piece in bytes.chunks(PIECE) {
        writer.write_all(piece)?;
    }
    writer.finish()
}

/// Reads up to the end; how many bytes came, which may be more than fit.
fn receive(reader: &mut dyn Reader, back: &mut [u8], progress: &Progress) -> io::Result<usize> {
    let (mut received, mut excess) = (0, [0; 1]);
    loop {
        let end = (received + PIECE).min(back.len());
        let place = match back.get_mut(received..end) {
            Some(place) if !place.is_empty() => place,
            _ => &mut excess,
        };
        match reader.read(place)? {
            0 => return Ok(received),
            read => {
                received += read;
                progress.advance(read as u64);
            }
        }
    }
}

/// This program, if no file is named.
fn own_file() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("this program does not know where it is; name a file")
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let cannot = || {
        format!(
            "cannot read {}; name a file that you may read",
            path.display()
        )
    };
    let len = fs::metadata(path).with_context(cannot)?.len();
    ensure!(
        len <= LARGEST,
        "{} is larger than 1 GiB, which is held in memory twice; name a smaller file",
        path.display()
    );
    fs::read(path).with_context(cannot)
}

fn digest(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
