// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The workloads.

use std::io::{Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::ensure;
use vsock_guest_program::job::{End, Job, Range};

use super::Sample;
use crate::bytes::{came_to, complete, echo, ended, joined, receive, send};
use crate::guest::HOST;
use crate::machine::Machine;
use crate::suite::pairs::{Opener, Pair, connect};
use crate::usage::Usage;

/// Bytes of a bulk transfer.
const BULK: u64 = 192 << 20;
/// Round trips, and connections.
const TURNS: u32 = 2_000;
const PIPELINED: u32 = 10_000;
const CONNECTS: u32 = 1_000;
/// Bytes of a message of a round trip.
const MESSAGE: u32 = 64;
/// Bytes of a request and of its answer, and how many are in flight.
const REQUEST: u32 = 1024;
const WINDOW: u32 = 32;
/// A workload that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(60);

/// What is measured.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Work {
    /// Bulk, in writes of this many bytes.
    ToHost(u32),
    ToGuest(u32),
    /// Round trips of a message, by the side that begins.
    Turns(Opener),
    /// Requests of the guest, many in flight.
    Requests,
    /// Connections that carry nothing.
    Connects(Opener),
}

/// The unit of a workload's figures.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Unit {
    Bytes,
    Operations,
}

impl Work {
    pub(crate) const ALL: [Self; 9] = [
        Self::ToHost(64 << 10),
        Self::ToHost(4 << 10),
        Self::ToGuest(64 << 10),
        Self::ToGuest(4 << 10),
        Self::Turns(Opener::Guest),
        Self::Turns(Opener::Host),
        Self::Requests,
        Self::Connects(Opener::Guest),
        Self::Connects(Opener::Host),
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ToHost(piece) if piece > 4 << 10 => "guest to host, writes of 64 KiB",
            Self::ToHost(_) => "guest to host, writes of 4 KiB",
            Self::ToGuest(piece) if piece > 4 << 10 => "host to guest, writes of 64 KiB",
            Self::ToGuest(_) => "host to guest, writes of 4 KiB",
            Self::Turns(Opener::Guest) => "round trips of 64 bytes, guest asks",
            Self::Turns(Opener::Host) => "round trips of 64 bytes, host asks",
            Self::Requests => "requests of 1 KiB, 32 in flight, guest asks",
            Self::Connects(Opener::Guest) => "connect and close, guest connects",
            Self::Connects(Opener::Host) => "connect and close, host connects",
        }
    }

    pub(crate) fn unit(self) -> Unit {
        match self {
            Self::ToHost(_) | Self::ToGuest(_) => Unit::Bytes,
            Self::Turns(_) | Self::Requests | Self::Connects(_) => Unit::Operations,
        }
    }

    pub(crate) fn run(self, machine: &mut Machine) -> anyhow::Result<Sample> {
        match self {
            Self::ToHost(piece) => to_host(machine, piece),
            Self::ToGuest(piece) => to_guest(machine, piece),
            Self::Turns(Opener::Guest) => guest_asks(machine, MESSAGE, TURNS, 1),
            Self::Requests => guest_asks(machine, REQUEST, PIPELINED, WINDOW),
            Self::Turns(Opener::Host) => host_asks(machine),
            Self::Connects(Opener::Guest) => guest_connects(machine),
            Self::Connects(Opener::Host) => host_connects(machine),
        }
    }
}

/// What had been used before the work began.
struct Start {
    time: Instant,
    device: Usage,
    host: Usage,
}

impl Start {
    fn now(machine: &Machine) -> anyhow::Result<Self> {
        Ok(Self {
            device: machine.device().usage()?,
            host: machine.device().host_usage()?,
            time: Instant::now(),
        })
    }

    fn sample(self, machine: &Machine, units: u64) -> anyhow::Result<Sample> {
        let seconds = self.time.elapsed().as_secs_f64();
        Ok(Sample {
            units: units as f64,
            seconds,
            device: machine.device().usage()? - self.device,
            host: machine.device().host_usage()? - self.host,
        })
    }
}

/// Without a pattern: making and checking it would be most of the work.
const fn plain(piece: u32) -> Range {
    Range {
        seed: None,
        from: 0,
        len: BULK,
        piece,
    }
}

fn to_host(machine: &mut Machine, piece: u32) -> anyhow::Result<Sample> {
    let Pair { mut host, guest } = connect(machine, Opener::Guest)?;
    let range = plain(piece);
    let start = Start::now(machine)?;
    let sent = machine.guest().send(guest, range)?;
    receive(&mut *host.reader, range)?;
    let sample = start.sample(machine, BULK)?;
    complete(sent.moved_within(LIMIT)?, range)?;
    machine.guest().close(guest)?;
    Ok(sample)
}

fn to_guest(machine: &mut Machine, piece: u32) -> anyhow::Result<Sample> {
    let Pair { mut host, guest } = connect(machine, Opener::Host)?;
    let range = plain(piece);
    let start = Start::now(machine)?;
    let received = machine.guest().receive(guest, plain(64 << 10))?;
    send(&mut *host.writer, range)?;
    let moved = received.moved_within(LIMIT)?;
    let sample = start.sample(machine, BULK)?;
    complete(moved, range)?;
    machine.guest().close(guest)?;
    Ok(sample)
}

fn guest_asks(machine: &mut Machine, size: u32, count: u32, window: u32) -> anyhow::Result<Sample> {
    let Pair { mut host, guest } = connect(machine, Opener::Guest)?;
    let service = thread::spawn(move || echo(&mut host));
    let start = Start::now(machine)?;
    let socket = guest.socket;
    let turns = machine.guest().start(Job::PingPong {
        socket,
        size,
        count,
        window,
    })?;
    let moved = turns.moved_within(LIMIT)?;
    let sample = start.sample(machine, count.into())?;
    came_to(moved, count.into(), End::Complete)?;
    machine.guest().close(guest)?;
    joined(service.join())??;
    Ok(sample)
}

fn host_asks(machine: &mut Machine) -> anyhow::Result<Sample> {
    let Pair { mut host, guest } = connect(machine, Opener::Host)?;
    let service = machine.guest().start(Job::Echo(guest.socket))?;
    let mut message = [7; MESSAGE as usize];
    let start = Start::now(machine)?;
    for turn in 0..TURNS {
        message.fill(turn.to_le_bytes()[0]);
        host.writer.write_all(&message)?;
        host.reader.read_exact(&mut message)?;
        ensure!(
            message == [turn.to_le_bytes()[0]; MESSAGE as usize],
            "turn {turn} received unexpected bytes"
        );
    }
    let sample = start.sample(machine, TURNS.into())?;
    drop(host);
    service.wait()?;
    machine.guest().close(guest)?;
    Ok(sample)
}

fn guest_connects(machine: &mut Machine) -> anyhow::Result<Sample> {
    let port = machine.port();
    let listener = machine.host().listen(port)?;
    let accepting = thread::spawn(move || {
        (0..CONNECTS).try_for_each(|_| {
            let mut stream = listener.accept()?;
            ended(&mut *stream.reader).map(drop)
        })
    });
    let start = Start::now(machine)?;
    let (count, bytes) = (CONNECTS, 0);
    let storm = machine.guest().start(Job::Storm {
        cid: HOST,
        port,
        count,
        bytes,
    })?;
    storm.moved_within(LIMIT)?;
    joined(accepting.join())??;
    start.sample(machine, CONNECTS.into())
}

fn host_connects(machine: &mut Machine) -> anyhow::Result<Sample> {
    let port = machine.port();
    let listener = machine.guest().listen(port)?;
    let service = machine.guest().start(Job::Serve(listener.socket))?;
    let host = machine.host();
    let start = Start::now(machine)?;
    for _ in 0..CONNECTS {
        drop(host.connect(port)?);
    }
    let sample = start.sample(machine, CONNECTS.into())?;
    machine.guest().close(listener)?;
    service.wait()?;
    Ok(sample)
}
