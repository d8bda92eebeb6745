// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The host component's jobs, on ordinary blocking streams.

use std::io::{self, ErrorKind, Read, Write};
use std::thread;

use anyhow::{Context, Error, Result, anyhow, ensure};
use serde::{Deserialize, Serialize};
use vsock_guest::device::{Host, Stream};

use crate::clock::{self, Nanos, Punctual};
use crate::latency::{Collection, Latencies, Latency, Plan};
use crate::pattern::{self, Pattern};

/// A task and its port: the guest's if the host connects, otherwise the host's.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Job {
    pub(crate) port: u32,
    pub(crate) task: Task,
}

/// What a host component does.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) enum Task {
    /// Accept the guest's connection and receive this many bytes of the pattern.
    Receive { bytes: u64 },
    /// Connect and send this many bytes of the pattern in pieces.
    Send { bytes: u64, piece: usize },
    /// Accept this many connections and echo on each until it ends. With `flood`, also connect to
    /// the same port of the guest and send until that connection ends.
    Echo { connections: u32, flood: bool },
    /// Connect and send messages that the guest echoes.
    Ask { size: usize, count: u64 },
    /// Accept this many connections one after another, each until it ends.
    Accept { count: u64 },
    /// Connect and close this many times.
    Connect { count: u64 },
    /// Accept the guest's connection and receive paced packets.
    Collect(Plan),
    /// Connect and send packets when they are due.
    Pace(Plan),
    /// Accept this many connections and keep them open. Echo on the last one until it ends.
    Hold { connections: u32 },
}

/// The result of a job.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Report {
    /// When the work began, after connecting.
    pub(crate) began: Nanos,
    /// When the work ended.
    pub(crate) ended: Nanos,
    pub(crate) latencies: Latencies,
}

impl Report {
    fn since(began: Nanos, latencies: Latencies) -> Result<Self> {
        Ok(Self {
            began,
            ended: clock::now()?,
            latencies,
        })
    }
}

impl Job {
    /// Runs the job. Calls `ready` when the guest may begin.
    pub(crate) fn run(self, host: &dyn Host, ready: impl FnOnce() -> Result<()>) -> Result<Report> {
        let connects = matches!(
            self.task,
            Task::Send { .. } | Task::Ask { .. } | Task::Connect { .. } | Task::Pace(_)
        );
        let listener = (!connects).then(|| host.listen(self.port)).transpose()?;
        ready()?;
        let connect = || host.connect(self.port);
        let open = || listener.as_ref().map_or_else(connect, |port| port.accept());
        match self.task {
            Task::Receive { bytes } => receive(&mut open()?, bytes),
            Task::Send { bytes, piece } => send(&mut open()?, bytes, piece),
            Task::Ask { size, count } => ask(&mut open()?, size, count),
            Task::Collect(plan) => collect(&mut open()?, plan),
            Task::Pace(plan) => pace(&mut open()?, plan),
            Task::Accept { count } => repeat(count, || ended(&mut open()?)),
            Task::Connect { count } => repeat(count, || open().map(drop)),
            Task::Echo { connections, flood } => {
                let began = clock::now()?;
                let flood = flood.then(connect).transpose()?;
                serve((0..connections).map(|_| open()), flood)?;
                Report::since(began, Latencies::default())
            }
            Task::Hold { connections } => {
                let streams = (0..connections).map(|_| open());
                let mut held = streams.collect::<io::Result<Vec<_>>>()?;
                let last = held.pop().context("nothing to hold")?;
                let began = clock::now()?;
                echo(last)?;
                Report::since(began, Latencies::default())
            }
        }
    }
}

fn repeat<E: Into<Error>>(count: u64, mut work: impl FnMut() -> Result<(), E>) -> Result<Report> {
    let began = clock::now()?;
    for _ in 0..count {
        work().map_err(Into::into)?;
    }
    Report::since(began, Latencies::default())
}

fn receive(stream: &mut Stream, bytes: u64) -> Result<Report> {
    let pattern = Pattern::new();
    let mut buffer = vec![0; pattern::MAX];
    let (began, mut received) = (clock::now()?, 0);
    while received < bytes {
        let len = stream.reader.read(&mut buffer)?;
        ensure!(len > 0, "the guest ended after {received} bytes");
        pattern.check(received, &buffer[..len])?;
        received += len as u64;
    }
    ensure!(
        received == bytes,
        "expected {bytes} bytes, received {received}"
    );
    Report::since(began, Latencies::default())
}

fn send(stream: &mut Stream, bytes: u64, piece: usize) -> Result<Report> {
    let pattern = Pattern::new();
    let began = clock::now()?;
    for position in (0..bytes).step_by(piece) {
        stream.writer.write_all(pattern.at(position, piece))?;
    }
    let report = Report::since(began, Latencies::default())?;
    ended(stream)?; // the guest closes after it has read everything
    Ok(report)
}

/// Waits until the guest has closed the connection.
fn ended(stream: &mut Stream) -> Result<()> {
    match stream.reader.read(&mut [0]) {
        Ok(0) => Ok(()),
        Ok(_) => Err(anyhow!("expected the end, received a byte from the guest")),
        Err(error) if is_end(&error) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::NotConnected
    )
}

/// Echoes on all streams until they end, and sends on the flood's stream if there is one.
fn serve(streams: impl Iterator<Item = io::Result<Stream>>, flood: Option<Stream>) -> Result<()> {
    thread::scope(|scope| {
        let flooding = flood.map(|stream| scope.spawn(|| send_until_it_ends(stream)));
        let streams = streams.collect::<io::Result<Vec<_>>>()?;
        let echoing = streams
            .into_iter()
            .map(|stream| scope.spawn(|| echo(stream)));
        for thread in flooding.into_iter().chain(echoing.collect::<Vec<_>>()) {
            let ended = thread.join();
            ended.map_err(|_| anyhow!("a host component panicked"))??;
        }
        Ok(())
    })
}

fn echo(mut stream: Stream) -> Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        match stream.reader.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(len) => stream.writer.write_all(&buffer[..len])?,
            Err(error) if is_end(&error) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

fn send_until_it_ends(mut stream: Stream) -> Result<()> {
    let pattern = Pattern::new();
    for position in (0..).step_by(pattern::MAX) {
        match stream.writer.write_all(pattern.at(position, pattern::MAX)) {
            Err(error) if is_end(&error) => break,
            written => written?,
        }
    }
    Ok(())
}

fn ask(stream: &mut Stream, size: usize, count: u64) -> Result<Report> {
    let pattern = Pattern::new();
    let mut answer = vec![0; size];
    let mut turns = Vec::new();
    let began = clock::now()?;
    let mut before = began;
    for turn in 0..count {
        stream.writer.write_all(pattern.at(turn, size))?;
        stream.reader.read_exact(&mut answer)?;
        pattern.check(turn, &answer)?;
        let now = clock::now()?;
        turns.push(now - before);
        before = now;
    }
    let latencies = Latencies {
        packets: Latency::of(turns),
        bursts: None,
    };
    Report::since(began, latencies)
}

fn collect(stream: &mut Stream, plan: Plan) -> Result<Report> {
    let mut collection = Collection::new(plan);
    let mut packet = vec![0; plan.size];
    let began = clock::now()?;
    while !collection.is_complete() {
        stream.reader.read_exact(&mut packet)?;
        collection.add(&packet)?;
    }
    Report::since(began, collection.latencies())
}

fn pace(stream: &mut Stream, plan: Plan) -> Result<Report> {
    let _punctual = Punctual::new()?;
    let mut packet = Pattern::new().at(0, plan.size).to_vec();
    let began = clock::now()?;
    for number in 0..plan.packets() {
        clock::wait_until(plan.due(number, began))?;
        Plan::stamp(&mut packet, number)?;
        stream.writer.write_all(&packet)?;
    }
    let report = Report::since(began, Latencies::default())?;
    ended(stream)?;
    Ok(report)
}
