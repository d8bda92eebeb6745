// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Measures what a packet costs in the muxer, beyond the copy of its payload.
//!
//! Each cell runs in turn with the same copies without a muxer, and the difference is the muxer's
//! cost. Guest and streams are bare: no event loop, no queue, no lock.

use std::io::{self, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;
use vsock_report::{digits, empty_table, keep, resident_bytes};
use vsock_tests::bare::{Bare, Copies};

use crate::runner::Effort;

/// Payloads, and numbers of connections.
const PAYLOADS: [(&str, usize); 3] = [("64 B", 64), ("4 KiB", 4096), ("64 KiB", 65_536)];
const CONNECTIONS: [usize; 3] = [1, 100, 1000];
/// Connections whose memory is measured.
const IDLE: usize = 10_000;
/// The aim: nanoseconds of a packet beyond its copy.
const GOAL: f64 = 250.0;
/// The aim: the cost of a packet with a thousand connections, compared with one.
const FLAT: f64 = 1.5;

/// Medians of one cell, in nanoseconds for each packet.
#[derive(Debug, Serialize)]
struct Cell {
    way: &'static str,
    payload: &'static str,
    connections: usize,
    /// With the copy.
    packet: f64,
    /// The copy alone.
    copy: f64,
    /// The muxer's share.
    beyond: f64,
}

#[derive(Debug, Serialize)]
struct Figures {
    cells: Vec<Cell>,
    /// Connects and closes in a second, by number of other connections.
    connects: Vec<(usize, f64)>,
    /// Resident bytes of a connection that has carried nothing: the muxer's entry, without a
    /// stream.
    idle_bytes: f64,
}

pub(crate) fn run(effort: Effort, out: &Path) -> Result<()> {
    let mut figures = Figures {
        idle_bytes: idle()?,
        cells: Vec::new(),
        connects: Vec::new(),
    };
    for (payload, bytes) in PAYLOADS {
        for connections in CONNECTIONS {
            figures
                .cells
                .extend(cells(effort, (payload, bytes), connections)?);
        }
    }
    for others in CONNECTIONS {
        let mut bare = Bare::new(others, 64)?;
        let rates = (0..effort.rounds).map(|_| {
            let (count, time) = timed(effort.run, |some| {
                bare.connect_and_close(some);
                some
            });
            number(count) / time.as_secs_f64()
        });
        figures.connects.push((others, median(rates)));
    }
    write(&figures).context("cannot write the table")?;
    keep(
        out,
        "muxer.json",
        &serde_json::to_vec_pretty(&figures)?,
        None,
    )?;
    Ok(())
}

/// Measures both directions of one case.
fn cells(
    effort: Effort,
    (payload, bytes): (&'static str, usize),
    connections: usize,
) -> Result<[Cell; 2]> {
    let (mut sender, mut receiver) = (
        Bare::new(connections, bytes)?,
        Bare::new(connections, bytes)?,
    );
    let mut copies = Copies::new(connections, bytes);
    let (mut up, mut down) = (Vec::new(), Vec::new());
    for _ in 0..effort.rounds {
        up.push((
            nanos(timed(effort.run, |some| {
                sender.to_host(some);
                some
            })),
            nanos(timed(effort.run, |some| {
                copies.to_host(some).map_or(0, |()| some)
            })),
        ));
        down.push((
            nanos(timed(effort.run, |some| receiver.to_guest(some))),
            nanos(timed(effort.run, |some| copies.to_guest(some))),
        ));
    }
    Ok(
        [("to host", up), ("to guest", down)].map(|(way, runs)| Cell {
            way,
            payload,
            connections,
            packet: median(runs.iter().map(|(packet, _)| *packet)),
            copy: median(runs.iter().map(|(_, copy)| *copy)),
            beyond: median(runs.iter().map(|(packet, copy)| packet - copy)),
        }),
    )
}

/// Works for about the time `run`. Returns how much was done, and in which time.
fn timed(run: Duration, mut work: impl FnMut(u64) -> u64) -> (u64, Duration) {
    work(64); // fills caches, and is not counted
    let start = Instant::now();
    let mut done = 0;
    loop {
        done += work(512);
        let time = start.elapsed();
        if time >= run {
            return (done, time);
        }
    }
}

/// Returns resident bytes per connection.
fn idle() -> Result<f64> {
    let warm = Bare::idle(100)?;
    let before = resident_bytes()?;
    let many = Bare::idle(IDLE)?;
    let after = resident_bytes()?;
    drop((warm, many));
    Ok(number(after.saturating_sub(before)) / number(IDLE as u64))
}

fn write(figures: &Figures) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let mut table = empty_table(&[
        "direction",
        "payload",
        "connections",
        "packets/s",
        "MB/s",
        "ns/packet",
        "ns copy",
        "ns beyond",
    ]);
    for cell in &figures.cells {
        let size = PAYLOADS.iter().find(|(name, _)| *name == cell.payload);
        let bytes = size.map_or(0, |(_, bytes)| *bytes);
        let rates = [1e9 / cell.packet, number(bytes as u64) * 1e3 / cell.packet];
        let mut line = [cell.way, cell.payload].map(str::to_owned).to_vec();
        line.push(cell.connections.to_string());
        let nanos = [cell.packet, cell.copy, cell.beyond];
        line.extend(rates.into_iter().chain(nanos).map(digits));
        table.add_row(line);
    }
    writeln!(out, "{table}")?;
    for (others, rate) in &figures.connects {
        writeln!(
            out,
            "connect and close, {others} connections: {rate:.0} per second"
        )?;
    }
    writeln!(
        out,
        "memory of an idle connection, without its stream: {:.0} bytes",
        figures.idle_bytes
    )?;
    let small = |way, connections| {
        figures
            .cells
            .iter()
            .find(|cell| {
                cell.way == way && cell.payload == "64 B" && cell.connections == connections
            })
            .map_or((f64::NAN, f64::NAN), |cell| (cell.packet, cell.beyond))
    };
    for way in ["to host", "to guest"] {
        let (one, many) = (small(way, 1), small(way, 1000));
        writeln!(
            out,
            "{way}: {:.0} ns beyond the copy (aim: {GOAL:.0}); with 1,000 connections {:.2} times \
             the cost of one (aim: {FLAT})",
            one.1,
            many.0 / one.0
        )?;
    }
    Ok(())
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    vsock_report::median(values).unwrap_or(f64::NAN)
}

fn nanos((count, time): (u64, Duration)) -> f64 {
    time.as_secs_f64() * 1e9 / number(count)
}

#[expect(clippy::cast_precision_loss, reason = "a count of less than 2^52")]
fn number(count: u64) -> f64 {
    count as f64
}
