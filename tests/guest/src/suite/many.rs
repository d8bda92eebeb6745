// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Many connections, at once and one after the other.

use std::io::Write;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};
use vsock_guest_program::job::{Answer, Job};
use vsock_guest_program::pattern::Pattern;

use super::pairs::{Opener, connect};
use super::{Outcome, Test};
use crate::child::wait_until;
use crate::device::{Host, LIMIT, Listener, Stream};
use crate::guest::{GuestSocket, Pending};
use crate::machine::Machine;

pub(super) const TESTS: &[Test] = &[
    Test::new("one_descriptor_for_each_connection", 60, descriptors),
    Test::new("a_storm_of_connections_from_the_guest", 60, |machine| {
        storms(machine, true, false)
    }),
    Test::new("a_storm_of_connections_from_the_host", 60, |machine| {
        storms(machine, false, true)
    }),
    Test::new("storms_of_connections_both_ways", 60, |machine| {
        storms(machine, true, true)
    }),
    Test::new("g7_8000_connections_from_the_guest", 150, from_guest),
    Test::new("g7_8000_connections_from_the_host", 150, from_host),
];

/// Connections that are open at once.
const MANY: u32 = 8_000;
/// The same where both ends are in one process, which has three descriptors for each.
const MANY_IN_PROCESS: u32 = 5_000;
const MANY_LIMIT: Duration = Duration::from_secs(90);
/// Anonymous memory that may be left of them, for the device's allocator.
const LEFT: u64 = 16 << 20;
/// Jobs that connect at once, and how often each.
const STORMS: u32 = 4;
const TURNS: u32 = 250;
/// Bytes that each of these connections carries, there and back.
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
        .context("descriptors are left open")?;
        ensure!(each <= 1.05, "{each:.2} when the {opener:?} connects");
    }
    Ok(Outcome::Measured(figure.join(", ")))
}

fn how_many(machine: &Machine) -> u32 {
    match machine.device().process() {
        Some(_) => MANY,
        None => MANY_IN_PROCESS,
    }
}

fn from_guest(machine: &mut Machine) -> anyhow::Result<Outcome> {
    let count = how_many(machine);
    let before = (
        machine.device().anonymous_bytes()?,
        machine.device().descriptors()?,
    );
    let port = machine.port();
    let listener = machine.host().listen(port)?;
    let accepting = thread::spawn(move || -> anyhow::Result<Vec<Stream>> {
        (0..count)
            .map(|index| {
                listener
                    .accept()
                    .with_context(|| format!("accepting connection {index}"))
            })
            .collect()
    });
    let connecting = machine.guest().start(Job::ConnectMany { port, count })?;
    let group = connecting.group(MANY_LIMIT)?;
    let mut streams = accepting
        .join()
        .map_err(|_| anyhow!("accepting panicked"))??;
    let echoing = machine.guest().start(Job::EchoEach {
        first: group.first,
        count,
    })?;
    let mut message = [0; MESSAGE];
    for (index, stream) in (0_u64..).zip(&mut streams) {
        let context = || format!("connection {index}");
        stream
            .reader
            .read_exact(&mut message)
            .with_context(context)?;
        let wrong = Pattern::new(index).wrong(&message, 0);
        ensure!(wrong.is_none(), "connection {index} has another's bytes");
        stream.writer.write_all(&message).with_context(context)?;
    }
    echoing.wait_for(MANY_LIMIT)?;
    let figure = held(machine, before.0, count)?;
    machine.guest().close_all(group)?;
    drop(streams);
    given_back(machine, before)?;
    Ok(Outcome::Measured(figure))
}

fn from_host(machine: &mut Machine) -> anyhow::Result<Outcome> {
    let count = how_many(machine);
    let before = (
        machine.device().anonymous_bytes()?,
        machine.device().descriptors()?,
    );
    let port = machine.port();
    let listener = machine.guest().listen(port)?;
    let accepting = machine.guest().start(Job::AcceptMany {
        listener: listener.socket,
        count,
    })?;
    let host = machine.host();
    let mut streams = (0..count)
        .map(|index| {
            host.connect(port)
                .with_context(|| format!("connection {index}"))
        })
        .collect::<anyhow::Result<Vec<Stream>>>()?;
    let group = accepting.group(MANY_LIMIT)?;
    let answering = machine.guest().start(Job::AnswerEach {
        first: group.first,
        count,
    })?;
    let mut message = [0; MESSAGE];
    for (index, stream) in (0..).zip(&mut streams) {
        Pattern::new(index).fill(&mut message, 0);
        stream.writer.write_all(&message)?;
    }
    for (index, stream) in (0..).zip(&mut streams) {
        stream
            .reader
            .read_exact(&mut message)
            .with_context(|| format!("connection {index}"))?;
        let wrong = Pattern::new(index).wrong(&message, 0);
        ensure!(wrong.is_none(), "connection {index} has another's bytes");
    }
    answering.wait_for(MANY_LIMIT)?;
    let figure = held(machine, before.0, count)?;
    drop(streams);
    machine.guest().close_all(group)?;
    machine.guest().close(listener)?;
    given_back(machine, before)?;
    Ok(Outcome::Measured(figure))
}

fn held(machine: &Machine, before: u64, count: u32) -> anyhow::Result<String> {
    let bytes = machine.device().anonymous_bytes()?.saturating_sub(before);
    Ok(format!(
        "{count} connections, {} bytes each",
        bytes / u64::from(count)
    ))
}

fn given_back(machine: &Machine, before: (u64, usize)) -> anyhow::Result<()> {
    let (memory, descriptors) = before;
    let now = || -> anyhow::Result<(u64, usize)> {
        Ok((
            machine.device().anonymous_bytes()?.saturating_sub(memory),
            machine.device().descriptors()?.saturating_sub(descriptors),
        ))
    };
    let back = wait_until(LIMIT, || {
        let (bytes, open) = now()?;
        Ok((bytes <= LEFT && open <= 8).then_some(()))
    })?;
    let (bytes, open) = now()?;
    ensure!(
        back.is_some(),
        "{bytes} bytes and {open} descriptors are left of closed connections"
    );
    Ok(())
}

fn storms(machine: &mut Machine, of_guest: bool, of_host: bool) -> anyhow::Result<Outcome> {
    let guests = of_guest.then(|| start_guest_storm(machine)).transpose()?;
    let hosts = of_host.then(|| start_host_storm(machine)).transpose()?;
    if let Some(storm) = guests {
        storm.finish()?;
    }
    if let Some(storm) = hosts {
        storm.finish(machine)?;
    }
    Ok(Outcome::Passed)
}

/// Jobs in the guest that connect, and threads on the host that echo.
struct GuestStorm {
    jobs: Vec<Pending>,
    threads: Vec<thread::JoinHandle<anyhow::Result<()>>>,
}

fn start_guest_storm(machine: &mut Machine) -> anyhow::Result<GuestStorm> {
    let port = machine.port();
    let listener: Arc<dyn Listener> = machine.host().listen(port)?.into();
    let threads = (0..STORMS)
        .map(|_| {
            let listener = Arc::clone(&listener);
            thread::spawn(move || {
                (0..TURNS).try_for_each(|_| {
                    let mut stream = listener.accept()?;
                    crate::bytes::echo(&mut stream)?;
                    Ok(())
                })
            })
        })
        .collect();
    let jobs = (0..STORMS)
        .map(|_| {
            machine.guest().start(Job::Storm {
                port,
                count: TURNS,
                bytes: 64,
            })
        })
        .collect::<anyhow::Result<_>>()?;
    Ok(GuestStorm { jobs, threads })
}

impl GuestStorm {
    fn finish(self) -> anyhow::Result<()> {
        for job in self.jobs {
            job.wait_for(Duration::from_secs(40))?;
        }
        for thread in self.threads {
            thread.join().map_err(|_| anyhow!("an echo panicked"))??;
        }
        Ok(())
    }
}

/// Threads on the host that connect, and a service in the guest that echoes.
struct HostStorm {
    listener: GuestSocket,
    service: Pending,
    threads: Vec<thread::JoinHandle<anyhow::Result<()>>>,
}

fn start_host_storm(machine: &mut Machine) -> anyhow::Result<HostStorm> {
    let port = machine.port();
    let listener = machine.guest().listen(port)?;
    let service = machine.guest().start(Job::Serve {
        listener: listener.socket,
    })?;
    let threads = (0..STORMS)
        .map(|storm| {
            let host = machine.host();
            thread::spawn(move || {
                (0..TURNS).try_for_each(|turn| {
                    one_echo(&*host, port, u64::from(storm * TURNS + turn))
                        .with_context(|| format!("connection {turn}"))
                })
            })
        })
        .collect();
    Ok(HostStorm {
        listener,
        service,
        threads,
    })
}

fn one_echo(host: &dyn Host, port: u32, seed: u64) -> anyhow::Result<()> {
    let mut stream = host.connect(port)?;
    let mut message = [0; MESSAGE];
    Pattern::new(seed).fill(&mut message, 0);
    stream.writer.write_all(&message)?;
    stream.reader.read_exact(&mut message)?;
    let wrong = Pattern::new(seed).wrong(&message, 0);
    ensure!(wrong.is_none(), "another's bytes");
    Ok(())
}

impl HostStorm {
    fn finish(self, machine: &Machine) -> anyhow::Result<()> {
        for thread in self.threads {
            thread.join().map_err(|_| anyhow!("a client panicked"))??;
        }
        machine.guest().close(self.listener)?;
        match self.service.wait()? {
            Answer::Served { connections } => {
                let expected = u64::from(STORMS * TURNS);
                ensure!(
                    connections == expected,
                    "the guest saw {connections} of {expected} connections"
                );
                Ok(())
            }
            other => bail!("the guest answered {other:?}"),
        }
    }
}
