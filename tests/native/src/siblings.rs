// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Bulk from one guest to another: directly, with credit from end to end, and by a relay that
//! copies between the Unix sockets of two devices.

use std::io::{Read, Write};
use std::path::Path;
use std::thread;

use anyhow::{Context, Result, anyhow};
use nix::time::{ClockId, clock_gettime};
use tempfile::TempDir;
use vsock_guest::device::daemon::{self, Daemon};
use vsock_guest::device::in_process::InProcess;
use vsock_guest::device::{Device, Kind, Listener, Stream};
use vsock_guest::place::Place;
use vsock_report::median;

use crate::clock;
use crate::guest::{Event, Guest};
use crate::pattern::{self, Pattern};
use crate::shape::Shape;

const CIDS: [u32; 2] = [8, 9];
const PORT: u32 = 1024;
/// Bytes in a GiB.
const GIB: f64 = (1_u64 << 30) as f64;
/// Bytes of one run.
const BYTES: u64 = 64 << 20;
const PIECES: [usize; 2] = [pattern::MAX, 4096];

/// Between two guests.
#[derive(Clone, Copy, Debug)]
enum Way {
    Program,
    Library,
    Relay,
}

/// What a guest sends.
#[derive(Clone, Copy, Debug)]
struct Load {
    bytes: u64,
    /// Bytes of a write.
    piece: usize,
}

/// What a run took.
struct Took {
    seconds: f64,
    /// Of the devices, and of the relay.
    cpu: f64,
}

/// Measures every way by turns, and prints the medians.
pub(crate) fn measure(rounds: usize, out: &mut impl Write) -> Result<()> {
    let program = daemon::program(Kind::Ours, &Place::new()?)?;
    let program = program.context("a device without a program")?;
    let ways = [Way::Program, Way::Library, Way::Relay];
    let cases = PIECES
        .iter()
        .flat_map(|piece| ways.map(|way| (way, *piece)));
    let mut cases: Vec<(Way, usize, Vec<Took>)> =
        cases.map(|(way, piece)| (way, piece, Vec::new())).collect();
    for _ in 0..rounds {
        for (way, piece, runs) in &mut cases {
            let load = Load {
                bytes: BYTES,
                piece: *piece,
            };
            runs.push(run(*way, &program, load)?);
        }
    }
    writeln!(
        out,
        "| bulk between two guests | way | MB/s | core, s/GiB |"
    )?;
    writeln!(out, "|---|---|---|---|")?;
    for (way, piece, runs) in cases {
        let rate = median(runs.iter().map(|run| BYTES as f64 / run.seconds / 1e6));
        let cpu = median(runs.iter().map(|run| run.cpu / BYTES as f64 * GIB));
        let (rate, cpu) = rate.zip(cpu).context("no round")?;
        writeln!(
            out,
            "| writes of {piece} B | {way:?} | {rate:.0} | {cpu:.3} |"
        )?;
    }
    Ok(())
}

fn run(way: Way, program: &Path, load: Load) -> Result<Took> {
    let directory = tempfile::tempdir()?;
    let path = directory.path();
    match way {
        Way::Program => {
            let device = Daemon::start_siblings(program, CIDS, path, &path.join("log"))?;
            between(&device, load)
        }
        Way::Library => between(&InProcess::start_siblings(CIDS, path)?, load),
        Way::Relay => relayed(program, &directory, load),
    }
}

fn between(device: &impl Device, load: Load) -> Result<Took> {
    let [first, second] = CIDS;
    let sender = Guest::boot(device.socket(), first, Shape::USUAL)?.with_sibling(second);
    let socket = device.sibling_socket().context("a device of one guest")?;
    let receiver = Guest::boot(socket, second, Shape::USUAL)?.with_sibling(first);
    let before = device.usage()?.cpu;
    let seconds = send(sender, receiver, load)?;
    let cpu = device.usage()?.cpu - before;
    Ok(Took { seconds, cpu })
}

fn relayed(program: &Path, directory: &TempDir, load: Load) -> Result<Took> {
    let device = |cid: u32| -> Result<(Daemon, Guest)> {
        let path = directory.path().join(cid.to_string());
        std::fs::create_dir(&path)?;
        let device = Daemon::start(program, &[], cid, &path, &path.join("log"))?;
        let guest = Guest::boot(device.socket(), cid, Shape::USUAL)?;
        Ok((device, guest))
    };
    let [(near, sender), (far, receiver)] = [device(CIDS[0])?, device(CIDS[1])?];
    let listener = near.host().listen(PORT)?;
    let to = far.host();
    let used = || -> Result<f64> { Ok(near.usage()?.cpu + far.usage()?.cpu) };
    let before = used()?;
    let relay = thread::spawn(move || relay(&*listener, || Ok(to.connect(PORT)?)));
    let seconds = send(sender, receiver, load)?;
    let relayed = relay.join().map_err(|_| anyhow!("the relay panicked"))??;
    let cpu = used()? - before + relayed;
    Ok(Took { seconds, cpu })
}

/// Copies until the sender ends; returns its time on a core.
fn relay(from: &dyn Listener, connect: impl Fn() -> Result<Stream>) -> Result<f64> {
    let mut from = from.accept()?;
    let mut to = connect()?;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match from.reader.read(&mut buffer)? {
            0 => break,
            len => to.writer.write_all(&buffer[..len])?,
        }
    }
    let cpu = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
    Ok(cpu.tv_sec() as f64 + cpu.tv_nsec() as f64 / 1e9)
}

/// Sends from one guest to the other, each on a thread; how long it took.
fn send(mut sender: Guest, receiver: Guest, load: Load) -> Result<f64> {
    let receiving = thread::spawn(move || receive(receiver, load.bytes));
    let id = sender.open(PORT)?;
    let pattern = Pattern::new();
    let began = clock::now()?;
    for position in (0..load.bytes).step_by(load.piece) {
        sender.send_all(id, pattern.at(position, load.piece))?;
        sender.handle_interrupts()?;
    }
    sender.close(id)?;
    let ended = receiving.join();
    let ended = ended.map_err(|_| anyhow!("the receiving guest panicked"))??;
    Ok((ended - began) as f64 / 1e9)
}

/// Receives everything; when that was.
fn receive(mut guest: Guest, bytes: u64) -> Result<clock::Nanos> {
    let pattern = Pattern::new();
    guest.accept()?;
    let mut received = 0;
    while received < bytes {
        guest.next_data()?;
        pattern.check(received, guest.payload())?;
        received += guest.payload().len() as u64;
    }
    let ended = clock::now()?;
    while !matches!(guest.next_within_limit()?, Event::Ended(_)) {}
    Ok(ended)
}

#[cfg(test)]
mod tests {
    use vsock_guest::device::in_process::InProcess;

    use super::{CIDS, Load, between};

    #[test]
    fn bytes_that_a_guest_sends_reach_the_other_guest() {
        let directory = tempfile::tempdir().unwrap();
        let device = InProcess::start_siblings(CIDS, directory.path()).unwrap();
        let load = Load {
            bytes: 1 << 20,
            piece: 4096,
        };
        assert!(between(&device, load).unwrap().seconds > 0.0);
    }
}
