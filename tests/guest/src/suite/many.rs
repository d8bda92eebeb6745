// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Many connections, at the same time and in quick succession.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};
use vsock_guest_program::job::{Answer, Group, GuestSocket, Job};
use vsock_guest_program::pattern::Pattern;

use super::pairs::{Opener, connect};
use super::{Outcome, Test};
use crate::bytes::{echo, joined};
use crate::child::wait_until;
use crate::device::{Host, LIMIT, Listener, Stream};
use crate::guest::{HOST, Pending};
use crate::machine::{Footprint, Machine};

pub(super) const TESTS: &[Test] = &[
    Test::new("a_connection_takes_one_descriptor", descriptors),
    Test::new("a_storm_of_connections_from_the_guest", |machine| {
        storms(machine, &[Opener::Guest])
    }),
    Test::new("a_storm_of_connections_from_the_host", |machine| {
        storms(machine, &[Opener::Host])
    }),
    Test::new("storms_of_connections_both_ways", |machine| {
        storms(machine, &Opener::BOTH)
    }),
    Test::new("g7_8000_connections_from_the_guest", from_guest).within(150),
    Test::new("g7_8000_connections_from_the_host", from_host).within(150),
];

/// Simultaneous connections.
const MANY: u32 = 8_000;
/// Simultaneous connections if both ends are in one process, which has three descriptors for each.
const MANY_IN_PROCESS: u32 = 5_000;
const MANY_LIMIT: Duration = Duration::from_secs(90);
/// Anonymous memory that the device's allocator may keep after the connections.
const LEFT: u64 = 16 << 20;
/// Jobs that connect at the same time, and how many connections each makes.
const STORMS: u32 = 4;
const TURNS: u32 = 250;
const STORM_LIMIT: Duration = Duration::from_secs(40);
/// Bytes that each of these connections carries in each direction.
const MESSAGE: usize = 64;

fn descriptors(machine: &mut Machine) -> anyhow::Result<Outcome> {
    const COUNT: usize = 100;
    if machine.device().process().is_none() {
        return Ok(Outcome::NotOffered("both ends are in one process"));
    }
    let before = machine.device().descriptors()?;
    let mut figure = Vec::new();
    for opener in Opener::BOTH {
        let mut pairs = Vec::new();
        for _ in 0..COUNT {
            pairs.push(connect(machine, opener)?);
        }
        let each = (machine.device().descriptors()? - before) as f64 / COUNT as f64;
        figure.push(format!("{each:.2} when the {opener:?} connects"));
        for pair in pairs {
            drop(pair.host);
            machine.guest().close(pair.guest)?;
        }
        wait_until(LIMIT, || {
            Ok((machine.device().descriptors()? <= before).then_some(()))
        })?
        .context("descriptors stay open")?;
        ensure!(each <= 1.05, "{each:.2} when the {opener:?} connects");
    }
    Ok(Outcome::Measured(figure.join(", ")))
}

/// Open connections. The guest's ends have consecutive numbers.
pub(crate) struct Crowd {
    streams: Vec<Stream>,
    group: Group,
    /// The guest's listener, if the guest accepted them.
    listener: Option<GuestSocket>,
}

/// Opens `count` connections.
pub(crate) fn crowd(machine: &mut Machine, opener: Opener, count: u32) -> anyhow::Result<Crowd> {
    let (port, host) = (machine.port(), machine.host());
    let each = |one: &dyn Fn() -> io::Result<Stream>| {
        let numbered = |index| one().with_context(|| format!("connection {index}"));
        (0..count).map(numbered).collect::<anyhow::Result<_>>()
    };
    Ok(match opener {
        Opener::Guest => {
            let listener = host.listen(port)?;
            thread::scope(|scope| {
                let accepting = scope.spawn(|| each(&|| listener.accept()));
                let connecting = machine.guest().start(Job::ConnectMany {
                    cid: HOST,
                    port,
                    count,
                })?;
                let group = connecting.group(MANY_LIMIT)?;
                let streams = joined(accepting.join())??;
                anyhow::Ok(Crowd {
                    streams,
                    group,
                    listener: None,
                })
            })?
        }
        Opener::Host => {
            let listening = machine.guest().listen(port)?;
            let (listener, listening) = (listening.socket, Some(listening));
            let accepting = machine.guest().start(Job::AcceptMany { listener, count })?;
            let streams = each(&|| host.connect(port))?;
            let group = accepting.group(MANY_LIMIT)?;
            Crowd {
                streams,
                group,
                listener: listening,
            }
        }
    })
}

fn from_guest(machine: &mut Machine) -> anyhow::Result<Outcome> {
    talking(machine, Opener::Guest, |machine, crowd| {
        let echoing = machine.guest().start(Job::EchoEach(crowd.group))?;
        for (index, stream) in (0..).zip(&mut crowd.streams) {
            let message = receive_own(stream, index)?;
            let sent = stream.writer.write_all(&message);
            sent.with_context(|| format!("connection {index}"))?;
        }
        Ok(echoing)
    })
}

fn from_host(machine: &mut Machine) -> anyhow::Result<Outcome> {
    talking(machine, Opener::Host, |machine, crowd| {
        let answering = machine.guest().start(Job::AnswerEach(crowd.group))?;
        let mut message = [0; MESSAGE];
        for (index, stream) in (0..).zip(&mut crowd.streams) {
            Pattern::new(index).fill(&mut message, 0);
            stream.writer.write_all(&message)?;
        }
        for (index, stream) in (0..).zip(&mut crowd.streams) {
            receive_own(stream, index)?;
        }
        Ok(answering)
    })
}

/// Runs traffic over all connections, closes them, and checks that the device keeps nothing.
fn talking(
    machine: &mut Machine,
    opener: Opener,
    talk: impl FnOnce(&Machine, &mut Crowd) -> anyhow::Result<Pending>,
) -> anyhow::Result<Outcome> {
    let count = match machine.device().process() {
        Some(_) => MANY,
        None => MANY_IN_PROCESS,
    };
    let before = Footprint::now(machine)?;
    let mut crowd = crowd(machine, opener, count)?;
    talk(machine, &mut crowd)?.wait_for(MANY_LIMIT)?;
    let each = before.more(machine)?.bytes / u64::from(count);
    // The side that opened the connections closes them first.
    if opener == Opener::Host {
        crowd.streams.clear();
    }
    machine.guest().close_all(crowd.group)?;
    if let Some(listener) = crowd.listener {
        machine.guest().close(listener)?;
    }
    drop(crowd.streams);
    before.given_back(machine, LEFT)?;
    let figure = format!("{count} connections, {each} bytes each");
    Ok(Outcome::Measured(figure))
}

/// Receives the message that belongs to this connection.
fn receive_own(stream: &mut Stream, index: u64) -> anyhow::Result<[u8; MESSAGE]> {
    let mut message = [0; MESSAGE];
    let read = stream.reader.read_exact(&mut message);
    read.with_context(|| format!("connection {index}"))?;
    let wrong = Pattern::new(index).wrong(&message, 0);
    ensure!(
        wrong.is_none(),
        "connection {index} received the bytes of another connection"
    );
    Ok(message)
}

fn storms(machine: &mut Machine, openers: &[Opener]) -> anyhow::Result<Outcome> {
    let mut storms = Vec::new();
    for opener in openers {
        storms.push(match opener {
            Opener::Guest => guest_storm(machine)?,
            Opener::Host => host_storm(machine)?,
        });
    }
    for storm in storms {
        storm.finish(machine)?;
    }
    Ok(Outcome::Passed)
}

/// Connections that one side opens and on which the other side echoes.
struct Storm {
    threads: Vec<thread::JoinHandle<anyhow::Result<()>>>,
    /// The guest's jobs: those that connect, or the one that serves.
    jobs: Vec<Pending>,
    listener: Option<GuestSocket>,
}

/// Starts jobs in the guest that connect, and threads on the host that echo.
fn guest_storm(machine: &mut Machine) -> anyhow::Result<Storm> {
    let port = machine.port();
    let listener: Arc<dyn Listener> = machine.host().listen(port)?.into();
    let threads = (0..STORMS).map(|_| {
        let listener = Arc::clone(&listener);
        thread::spawn(move || {
            (0..TURNS).try_for_each(|_| Ok(echo(&mut listener.accept()?).map(drop)?))
        })
    });
    let (threads, count, bytes) = (threads.collect(), TURNS, 64);
    let jobs = (0..STORMS).map(|_| {
        machine.guest().start(Job::Storm {
            cid: HOST,
            port,
            count,
            bytes,
        })
    });
    let jobs = jobs.collect::<anyhow::Result<_>>()?;
    Ok(Storm {
        threads,
        jobs,
        listener: None,
    })
}

/// Starts threads on the host that connect, and a service in the guest that echoes.
fn host_storm(machine: &mut Machine) -> anyhow::Result<Storm> {
    let port = machine.port();
    let listener = machine.guest().listen(port)?;
    let jobs = vec![machine.guest().start(Job::Serve(listener.socket))?];
    let threads = (0..STORMS).map(|storm| {
        let host = machine.host();
        thread::spawn(move || {
            (0..TURNS).try_for_each(|turn| {
                one_echo(&*host, port, u64::from(storm * TURNS + turn))
                    .with_context(|| format!("connection {turn}"))
            })
        })
    });
    let threads = threads.collect();
    Ok(Storm {
        threads,
        jobs,
        listener: Some(listener),
    })
}

fn one_echo(host: &dyn Host, port: u32, seed: u64) -> anyhow::Result<()> {
    let mut stream = host.connect(port)?;
    let mut message = [0; MESSAGE];
    Pattern::new(seed).fill(&mut message, 0);
    stream.writer.write_all(&message)?;
    receive_own(&mut stream, seed).map(drop)
}

impl Storm {
    fn finish(self, machine: &Machine) -> anyhow::Result<()> {
        for thread in self.threads {
            joined(thread.join())??;
        }
        // A service runs until its listener is closed.
        if let Some(listener) = self.listener {
            machine.guest().close(listener)?;
        }
        for job in self.jobs {
            if let Answer::Served(connections) = job.wait_for(STORM_LIMIT)? {
                let expected = u64::from(STORMS * TURNS);
                ensure!(
                    connections == expected,
                    "the guest saw {connections} of {expected} connections"
                );
            }
        }
        Ok(())
    }
}
