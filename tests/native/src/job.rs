// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a host component does, on ordinary blocking streams, wherever it lives.

use std::io::{self, ErrorKind, Read, Write};
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use serde::{Deserialize, Serialize};
use vsock_guest::device::{Host, Stream};

use crate::clock::{self, Nanos, Punctual};
use crate::latency::{Collection, Latencies, Latency, Plan};
use crate::pattern::{self, Pattern};

/// What to do. The guest connects to `port` of the host, or listens on `port` itself.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) enum Job {
    /// Take the guest's connection, and receive so many bytes of the pattern.
    Receive { port: u32, bytes: u64 },
    /// Connect, and send so many bytes of the pattern in pieces.
    Send { port: u32, bytes: u64, piece: usize },
    /// Take so many connections, and echo on each until it ends; and connect to a port of the guest, if
    /// one is given, to send until that connection ends.
    Echo {
        port: u32,
        connections: u32,
        flood: Option<u32>,
    },
    /// Connect, and have messages echoed.
    Ask { port: u32, size: usize, count: u64 },
    /// Take so many connections one after the other, each until it ends.
    Accept { port: u32, count: u64 },
    /// Connect and close, so many times.
    Connect { port: u32, count: u64 },
    /// Take the guest's connection, and packets as they come.
    Collect { port: u32, plan: Plan },
    /// Connect, and send packets when they are due.
    Pace { port: u32, plan: Plan },
    /// Take so many connections and keep them, until what is sent on the last one was echoed and it ends.
    Hold { port: u32, connections: u32 },
}

/// What a job has to report.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Report {
    /// When the work began, after connecting.
    pub(crate) began: Nanos,
    /// When it was done.
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
    /// Does it. `ready` is called when the guest may begin.
    pub(crate) fn run(self, host: &dyn Host, ready: impl FnOnce() -> Result<()>) -> Result<Report> {
        match self {
            Self::Receive { port, bytes } => {
                let mut stream = accepted(host, port, ready)?;
                receive(&mut stream, bytes)
            }
            Self::Collect { port, plan } => {
                let mut stream = accepted(host, port, ready)?;
                collect(&mut stream, plan)
            }
            Self::Accept { port, count } => accept(host, port, count, ready),
            Self::Hold { port, connections } => hold(host, port, connections, ready),
            Self::Echo {
                port,
                connections,
                flood,
            } => serve(host, port, connections, flood, ready),
            Self::Send { port, bytes, piece } => {
                ready()?;
                send(&mut host.connect(port)?, bytes, piece)
            }
            Self::Ask { port, size, count } => {
                ready()?;
                ask(&mut host.connect(port)?, size, count)
            }
            Self::Pace { port, plan } => {
                ready()?;
                pace(&mut host.connect(port)?, plan)
            }
            Self::Connect { port, count } => {
                ready()?;
                let began = clock::now()?;
                for _ in 0..count {
                    drop(host.connect(port)?);
                }
                Report::since(began, Latencies::default())
            }
        }
    }
}

fn accepted(host: &dyn Host, port: u32, ready: impl FnOnce() -> Result<()>) -> Result<Stream> {
    let listener = host.listen(port)?;
    ready()?;
    Ok(listener.accept()?)
}

fn receive(stream: &mut Stream, bytes: u64) -> Result<Report> {
    let pattern = Pattern::new();
    let mut buffer = vec![0; pattern::MAX];
    let (began, mut received) = (clock::now()?, 0);
    while received < bytes {
        let len = stream.reader.read(&mut buffer)?;
        ensure!(len > 0, "the guest has ended after {received} bytes");
        pattern.check(received, &buffer[..len])?;
        received += len as u64;
    }
    ensure!(
        received == bytes,
        "{received} bytes came instead of {bytes}"
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
    ended(stream)?; // what was sent is read first
    Ok(report)
}

/// Waits until the guest has closed its connection.
fn ended(stream: &mut Stream) -> Result<()> {
    match stream.reader.read(&mut [0]) {
        Ok(0) => Ok(()),
        Ok(_) => Err(anyhow!("the guest has sent something")),
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

fn serve(
    host: &dyn Host,
    port: u32,
    connections: u32,
    flood: Option<u32>,
    ready: impl FnOnce() -> Result<()>,
) -> Result<Report> {
    let listener = host.listen(port)?;
    ready()?;
    let began = clock::now()?;
    thread::scope(|scope| -> Result<()> {
        let flood = flood.map(|port| host.connect(port)).transpose()?;
        let flooding = flood.map(|stream| scope.spawn(|| send_until_it_ends(stream)));
        let accepted = (0..connections).map(|_| listener.accept());
        let streams = accepted.collect::<io::Result<Vec<_>>>()?;
        let echoing: Vec<_> = streams
            .into_iter()
            .map(|stream| scope.spawn(|| echo(stream)))
            .collect();
        for thread in flooding.into_iter().chain(echoing) {
            thread
                .join()
                .map_err(|_| anyhow!("a host component panicked"))??;
        }
        Ok(())
    })?;
    Report::since(began, Latencies::default())
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

fn accept(
    host: &dyn Host,
    port: u32,
    count: u64,
    ready: impl FnOnce() -> Result<()>,
) -> Result<Report> {
    let listener = host.listen(port)?;
    ready()?;
    let began = clock::now()?;
    for _ in 0..count {
        ended(&mut listener.accept()?)?;
    }
    Report::since(began, Latencies::default())
}

fn hold(
    host: &dyn Host,
    port: u32,
    connections: u32,
    ready: impl FnOnce() -> Result<()>,
) -> Result<Report> {
    let listener = host.listen(port)?;
    ready()?;
    let accepted = (0..connections).map(|_| listener.accept());
    let mut held = accepted.collect::<io::Result<Vec<_>>>()?;
    let last = held.pop().context("nothing to hold")?;
    let began = clock::now()?;
    echo(last)?;
    Report::since(began, Latencies::default())
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
    let mut burst = began;
    for number in 0..plan.packets() {
        clock::wait_until(plan.due(number, began))?;
        burst = plan.stamp(&mut packet, number, burst)?;
        stream.writer.write_all(&packet)?;
    }
    let report = Report::since(began, Latencies::default())?;
    ended(stream)?;
    Ok(report)
}
