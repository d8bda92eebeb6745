// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The guest's part of each row. The host's part is a [`Task`].

use std::collections::{HashMap, VecDeque};

use anyhow::{Result, bail, ensure};
use vsock_guest::usage::Usage;

use crate::clock::{self, MILLISECOND, Nanos};
use crate::device::Machine;
use crate::driver::Notified;
use crate::guest::{Event, Guest, Id};
use crate::halt::Wait;
use crate::job::{Report, Task};
use crate::latency::{Collection, Latencies, Latency, Plan};
use crate::pattern::{self, Pattern};
use crate::results::Sample;
use crate::row::{End, Work};

/// The size of a round trip's message.
const MESSAGE: usize = 64;
/// The connections with requests, the requests in flight on each, and their size.
const CLIENTS: u32 = 16;
const WINDOW: usize = 8;
const REQUEST: usize = 1024;
/// How long an idle device is watched.
const IDLE: Nanos = 300 * MILLISECOND;
/// The most connections that are being established at the same time.
const OPENING: u32 = 64;

// Each write is a range of the pattern.
const _: () = assert!(REQUEST <= pattern::MAX && MESSAGE <= pattern::MAX);

/// Runs a row's work.
pub(crate) fn run(work: Work, machine: &mut Machine) -> Result<Sample> {
    use End::{Guest, Host};
    let port = machine.port();
    match work {
        Work::Bulk { from, bytes, piece } => match from {
            Guest => bulk_to_host(machine, port, bytes, piece),
            Host => bulk_to_guest(machine, port, bytes, piece),
        },
        Work::Turns { from: Guest, count } => guest_asks(machine, port, count),
        Work::Turns { from: Host, count } => host_asks(machine, port, count),
        Work::Connects { from: Guest, count } => guest_connects(machine, port, count),
        Work::Connects { from: Host, count } => host_connects(machine, port, count),
        Work::Packets { from: Guest, plan } => packets_to_host(machine, port, plan),
        Work::Packets { from: Host, plan } => packets_to_guest(machine, port, plan),
        Work::Requests { count, beside_bulk } => requests(machine, port, count, beside_bulk),
        Work::Idle { connections, turns } => idle(machine, port, connections, turns),
    }
}

/// The usage before the work began.
struct Start {
    device: Usage,
    notified: Notified,
    time: Nanos,
}

impl Start {
    fn now(machine: &Machine) -> Result<Self> {
        Ok(Self {
            device: (machine.usage)()?,
            notified: machine.guest.driver.notified(),
            time: clock::now()?,
        })
    }

    /// Returns a sample from the start to now.
    fn sample(&self, machine: &Machine, units: u64) -> Result<Sample> {
        let seconds = (clock::now()? - self.time) as f64 / 1e9;
        let notified = machine.guest.driver.notified();
        Ok(Sample {
            units: units as f64,
            seconds,
            device: (machine.usage)()? - self.device,
            kicks: (notified.kicks - self.notified.kicks) as f64,
            interrupts: (notified.interrupts - self.notified.interrupts) as f64,
            latencies: Latencies::default(),
            beside: None,
            idle_core: None,
        })
    }
}

impl Sample {
    /// Uses the time and the latencies that the host measured.
    fn of_host(mut self, report: &Report) -> Self {
        self.seconds = (report.ended - report.began) as f64 / 1e9;
        self.latencies = report.latencies;
        self
    }
}

fn bulk_to_host(machine: &mut Machine, port: u32, bytes: u64, piece: usize) -> Result<Sample> {
    let pattern = Pattern::new();
    machine.host.start(port, Task::Receive { bytes })?;
    let id = machine.guest.open(port)?;
    let start = Start::now(machine)?;
    for position in (0..bytes).step_by(piece) {
        machine.guest.send_all(id, pattern.at(position, piece))?;
        machine.guest.handle_interrupts()?;
    }
    let report = machine.host.finish()?;
    let mut sample = start.sample(machine, bytes)?;
    // The transfer ends when the host component has read everything, which is later than the last
    // send.
    sample.seconds = (report.ended - start.time) as f64 / 1e9;
    machine.guest.close(id)?;
    Ok(sample)
}

fn bulk_to_guest(machine: &mut Machine, port: u32, bytes: u64, piece: usize) -> Result<Sample> {
    let pattern = Pattern::new();
    let start = Start::now(machine)?;
    machine.host.start(port, Task::Send { bytes, piece })?;
    let id = machine.guest.accept()?;
    let mut received = 0;
    while received < bytes {
        machine.guest.next_data()?;
        pattern.check(received, machine.guest.payload())?;
        received += machine.guest.payload().len() as u64;
    }
    let ended = clock::now()?;
    let mut sample = start.sample(machine, bytes)?;
    machine.guest.close(id)?;
    // From the host's first write to the last byte in the guest.
    sample.seconds = (ended - machine.host.finish()?.began) as f64 / 1e9;
    Ok(sample)
}

fn guest_asks(machine: &mut Machine, port: u32, count: u64) -> Result<Sample> {
    machine.host.start(
        port,
        Task::Echo {
            connections: 1,
            flood: false,
        },
    )?;
    let id = machine.guest.open(port)?;
    let start = Start::now(machine)?;
    let latencies = turns(&mut machine.guest, id, count)?;
    let mut sample = start.sample(machine, count)?;
    sample.latencies = latencies;
    machine.guest.close(id)?;
    machine.host.finish()?;
    Ok(sample)
}

/// Runs round trips one after another.
fn turns(guest: &mut Guest, id: Id, count: u64) -> Result<Latencies> {
    let pattern = Pattern::new();
    let mut durations = Vec::new();
    for turn in 0..count {
        let sent = clock::now()?;
        guest.send_all(id, pattern.at(turn, MESSAGE))?;
        let mut received = 0;
        while received < MESSAGE {
            guest.next_data()?;
            pattern.check(turn + received as u64, guest.payload())?;
            received += guest.payload().len();
        }
        durations.push(clock::now()? - sent);
    }
    Ok(Latencies {
        packets: Latency::of(durations),
        bursts: None,
    })
}

fn host_asks(machine: &mut Machine, port: u32, count: u64) -> Result<Sample> {
    let (start, size) = (Start::now(machine)?, MESSAGE);
    machine.host.start(port, Task::Ask { size, count })?;
    let id = machine.guest.accept()?;
    let mut message = Vec::new();
    loop {
        match machine.guest.next_within_limit()? {
            Event::Data(_) => {
                message.clear();
                message.extend_from_slice(machine.guest.payload());
                machine.guest.send_all(id, &message)?;
            }
            Event::Ended(_) => break,
            Event::Opened(_) | Event::Credit(_) => {}
        }
    }
    let sample = start.sample(machine, count)?;
    Ok(sample.of_host(&machine.host.finish()?))
}

fn guest_connects(machine: &mut Machine, port: u32, count: u64) -> Result<Sample> {
    machine.host.start(port, Task::Accept { count })?;
    let start = Start::now(machine)?;
    for _ in 0..count {
        let id = machine.guest.open(port)?;
        machine.guest.close(id)?;
    }
    let sample = start.sample(machine, count)?;
    machine.host.finish()?;
    Ok(sample)
}

fn host_connects(machine: &mut Machine, port: u32, count: u64) -> Result<Sample> {
    let start = Start::now(machine)?;
    machine.host.start(port, Task::Connect { count })?;
    let mut ended = 0;
    while ended < count {
        if let Event::Ended(_) = machine.guest.next_within_limit()? {
            ended += 1;
        }
    }
    let sample = start.sample(machine, count)?;
    Ok(sample.of_host(&machine.host.finish()?))
}

fn packets_to_host(machine: &mut Machine, port: u32, plan: Plan) -> Result<Sample> {
    machine.host.start(port, Task::Collect(plan))?;
    let id = machine.guest.open(port)?;
    let start = Start::now(machine)?;
    let mut packet = Pattern::new().at(0, plan.size).to_vec();
    for number in 0..plan.packets() {
        // Until the next burst is due, the guest handles what arrives, such as credit updates.
        let due = Wait::Until(plan.due(number, start.time));
        if number % u64::from(plan.burst) == 0 {
            while machine.guest.next(due)?.is_some() {}
        }
        Plan::stamp(&mut packet, number)?;
        machine.guest.send_all(id, &packet)?;
    }
    let report = machine.host.finish()?;
    let sample = start.sample(machine, plan.packets())?;
    machine.guest.close(id)?;
    Ok(sample.of_host(&report))
}

fn packets_to_guest(machine: &mut Machine, port: u32, plan: Plan) -> Result<Sample> {
    let start = Start::now(machine)?;
    machine.host.start(port, Task::Pace(plan))?;
    let id = machine.guest.accept()?;
    let mut collection = Collection::new(plan);
    let mut waiting = Vec::new();
    while !collection.is_complete() {
        machine.guest.next_data()?;
        waiting.extend_from_slice(machine.guest.payload());
        // Packets have no boundaries in a stream, so keep the rest for the next read.
        let whole = waiting.len() - waiting.len() % plan.size;
        for packet in waiting[..whole].chunks(plan.size) {
            collection.add(packet)?;
        }
        waiting.drain(..whole);
    }
    let sample = start.sample(machine, plan.packets())?;
    machine.guest.close(id)?;
    let mut sample = sample.of_host(&machine.host.finish()?);
    sample.latencies = collection.latencies();
    Ok(sample)
}

/// A connection with requests: its position in both directions, and when each pending request was
/// sent.
#[derive(Default)]
struct Client {
    received: u64,
    sent: u64,
    in_flight: VecDeque<Nanos>,
}

impl Client {
    fn ask(&mut self, guest: &mut Guest, id: Id, pattern: &Pattern) -> Result<()> {
        self.in_flight.push_back(clock::now()?);
        let sent = guest.send(id, pattern.at(self.sent, REQUEST))?;
        ensure!(sent == REQUEST, "the device has no room for a request");
        self.sent += REQUEST as u64;
        Ok(())
    }

    /// Takes part of the answers, and records the latencies of those that it completes.
    fn take_answers(
        &mut self,
        payload: &[u8],
        pattern: &Pattern,
        latencies: &mut Vec<Nanos>,
    ) -> Result<usize> {
        pattern.check(self.received, payload)?;
        let before = self.received / REQUEST as u64;
        self.received += payload.len() as u64;
        let complete = usize::try_from(self.received / REQUEST as u64 - before)?;
        let now = clock::now()?;
        latencies.extend(self.in_flight.drain(..complete).map(|sent| now - sent));
        Ok(complete)
    }
}

fn requests(machine: &mut Machine, port: u32, count: u64, beside_bulk: bool) -> Result<Sample> {
    let pattern = Pattern::new();
    machine.host.start(
        port,
        Task::Echo {
            connections: CLIENTS,
            flood: beside_bulk,
        },
    )?;
    let flood = beside_bulk.then(|| machine.guest.accept()).transpose()?;
    let mut clients = HashMap::new();
    while clients.len() < CLIENTS as usize {
        // What the flood sends before the measurement is discarded.
        clients.insert(machine.guest.open(port)?, Client::default());
    }
    let start = Start::now(machine)?;
    let (mut asked, mut flooded, mut latencies) = (0, 0, Vec::new());
    for (id, client) in &mut clients {
        for _ in 0..WINDOW {
            client.ask(&mut machine.guest, *id, &pattern)?;
            asked += 1;
        }
    }
    while (latencies.len() as u64) < count {
        let id = machine.guest.next_data()?;
        if Some(id) == flood {
            flooded += machine.guest.payload().len();
            continue;
        }
        let client = clients.get_mut(&id);
        let Some(client) = client.filter(|client| !client.in_flight.is_empty()) else {
            bail!("received an answer without a request");
        };
        let complete = client.take_answers(machine.guest.payload(), &pattern, &mut latencies)?;
        for _ in 0..complete {
            if asked < count {
                client.ask(&mut machine.guest, id, &pattern)?;
                asked += 1;
            }
        }
    }
    let mut sample = start.sample(machine, latencies.len() as u64)?;
    sample.latencies.packets = Latency::of(latencies);
    sample.beside = flood.map(|_| flooded as f64);
    for id in flood.iter().chain(clients.keys()) {
        machine.guest.close(*id)?;
    }
    machine.host.finish()?;
    Ok(sample)
}

fn idle(machine: &mut Machine, port: u32, connections: u32, count: u64) -> Result<Sample> {
    machine.host.start(port, Task::Hold { connections })?;
    let mut last = machine.guest.open(port)?;
    // Opening runs ahead of the confirmations, but not so far that a backlog overflows.
    let (mut begun, mut opened) = (1, 1);
    while opened < connections {
        while begun < connections && begun - opened < OPENING {
            last = machine.guest.request(port)?;
            begun += 1;
        }
        match machine.guest.next_within_limit()? {
            Event::Opened(_) => opened += 1,
            Event::Ended(_) => bail!("connection {opened} was refused"),
            Event::Data(_) | Event::Credit(_) => {}
        }
    }
    let start = Start::now(machine)?;
    let until = Wait::Until(start.time + IDLE);
    while machine.guest.next(until)?.is_some() {}
    // The idle share comes from the pause before the round trips.
    let quiet = start.sample(machine, 1)?;
    let start = Start::now(machine)?;
    let latencies = turns(&mut machine.guest, last, count)?;
    let mut sample = start.sample(machine, count)?;
    sample.latencies = latencies;
    sample.idle_core = Some(quiet.device.cpu / quiet.seconds);
    machine.guest.close(last)?;
    machine.host.finish()?;
    Ok(sample)
}

#[cfg(test)]
mod tests {
    use vsock_guest::device::Device;
    use vsock_guest::device::in_process::InProcess;

    use crate::device::Machine;
    use crate::host::HostSide;
    use crate::row::{self, Work};
    use crate::shape::Shape;

    fn serve(shape: Shape) {
        let directory = tempfile::tempdir().unwrap();
        let device = InProcess::start(7, directory.path(), None).unwrap();
        let host = HostSide::here(device.host()).unwrap();
        let usage = Box::new(move || device.usage());
        let mut machine = Machine::boot(directory, 7, shape, usage, host).unwrap();
        for row in row::all(50) {
            if let Work::Bulk { .. } | Work::Turns { .. } = row.work {
                let done = super::run(row.work, &mut machine);
                done.unwrap_or_else(|error| panic!("{shape:?}, {}: {error:#}", row.name));
            }
        }
        assert_eq!(machine.guest.driver.malformed, 0, "{shape:?}");
    }

    #[test]
    fn every_driver_configuration_is_served() {
        for (event_idx, indirect) in [(true, true), (true, false), (false, true), (false, false)] {
            for base in [Shape::PLAIN, Shape::RECENT] {
                // The other of the two sizes, 128 and 256.
                let queue_size = 384 - base.queue_size;
                serve(Shape {
                    event_idx,
                    indirect,
                    queue_size,
                    ..base
                });
            }
        }
    }
}
