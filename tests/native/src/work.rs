// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The guest's part of each row; the host's is a [`Job`].

use std::collections::{HashMap, VecDeque};

use anyhow::{Result, bail, ensure};
use vsock_guest::usage::Usage;

use crate::clock::{self, MILLISECOND, Nanos};
use crate::device::{Machine, Running};
use crate::driver::Notified;
use crate::guest::{Event, Guest, Id};
use crate::halt::Wait;
use crate::job::{Job, Report};
use crate::latency::{Collection, Latencies, Latency, Plan};
use crate::pattern::{self, Pattern};
use crate::results::Sample;
use crate::row::{Begins, Beside, Way, Work};

/// Bytes of a message that goes there and back.
const MESSAGE: usize = 64;
/// Connections with requests, how many are under way on each, and their size.
const CLIENTS: u32 = 16;
const WINDOW: usize = 8;
const REQUEST: usize = 1024;
/// How long a device is watched that has nothing to do.
const IDLE: Nanos = 300 * MILLISECOND;
/// How many connections begin before the first of them is waited for.
const OPENING: u32 = 64;

/// Does the work of a row.
pub(crate) fn run(work: Work, machine: &mut Machine) -> Result<Sample> {
    match work {
        Work::Bulk { way, bytes, piece } => match way {
            Way::ToHost => bulk_to_host(machine, bytes, piece),
            Way::ToGuest => bulk_to_guest(machine, bytes, piece),
        },
        Work::Turns { begins, count } => match begins {
            Begins::Guest => guest_asks(machine, count),
            Begins::Host => host_asks(machine, count),
        },
        Work::Connects { begins, count } => match begins {
            Begins::Guest => guest_connects(machine, count),
            Begins::Host => host_connects(machine, count),
        },
        Work::Packets { way, plan } => match way {
            Way::ToHost => packets_to_host(machine, plan),
            Way::ToGuest => packets_to_guest(machine, plan),
        },
        Work::Requests { count, beside } => requests(machine, count, beside),
        Work::Idle { connections, turns } => idle(machine, connections, turns),
    }
}

/// What had been used before the work began.
struct Start {
    device: Usage,
    notified: Notified,
    time: Nanos,
}

impl Start {
    fn now(device: &Running, guest: &Guest) -> Result<Self> {
        Ok(Self {
            device: device.usage()?,
            notified: guest.notified(),
            time: clock::now()?,
        })
    }

    /// The work began at the start, and ended now.
    fn sample(&self, device: &Running, guest: &Guest, units: u64) -> Result<Sample> {
        let seconds = (clock::now()? - self.time) as f64 / 1e9;
        let notified = guest.notified();
        Ok(Sample {
            units: units as f64,
            seconds,
            device: device.usage()? - self.device,
            kicks: (notified.kicks - self.notified.kicks) as f64,
            interrupts: (notified.interrupts - self.notified.interrupts) as f64,
            latencies: Latencies::default(),
            beside: None,
            idle_core: None,
        })
    }
}

impl Sample {
    /// The work was the host's: its time and its latencies count.
    fn of_host(mut self, report: &Report) -> Self {
        self.seconds = (report.ended - report.began) as f64 / 1e9;
        self.latencies = report.latencies;
        self
    }
}

fn bulk_to_host(machine: &mut Machine, bytes: u64, piece: usize) -> Result<Sample> {
    let port = machine.port();
    let pattern = Pattern::new();
    let job = machine.host.start(Job::Receive { port, bytes })?;
    let id = machine.guest.open(port)?;
    let start = Start::now(&machine.device, &machine.guest)?;
    for position in (0..bytes).step_by(piece) {
        machine.guest.send_all(id, pattern.at(position, piece))?;
        machine.guest.hear()?;
    }
    let report = job.finish()?;
    let mut sample = start.sample(&machine.device, &machine.guest, bytes)?;
    sample.seconds = (report.ended - start.time) as f64 / 1e9;
    machine.guest.close(id)?;
    Ok(sample)
}

fn bulk_to_guest(machine: &mut Machine, bytes: u64, piece: usize) -> Result<Sample> {
    let port = machine.port();
    let pattern = Pattern::new();
    let start = Start::now(&machine.device, &machine.guest)?;
    let job = machine.host.start(Job::Send { port, bytes, piece })?;
    let id = machine.guest.accept()?;
    let mut received = 0;
    while received < bytes {
        match machine.guest.next_within_limit()? {
            Event::Data(_) => {
                pattern.check(received, machine.guest.payload())?;
                received += machine.guest.payload().len() as u64;
            }
            Event::Ended(_) => bail!("the host has ended after {received} bytes"),
            Event::Opened(_) | Event::Credit(_) => {}
        }
    }
    let ended = clock::now()?;
    let mut sample = start.sample(&machine.device, &machine.guest, bytes)?;
    machine.guest.close(id)?;
    sample.seconds = (ended - job.finish()?.began) as f64 / 1e9;
    Ok(sample)
}

fn guest_asks(machine: &mut Machine, count: u64) -> Result<Sample> {
    let port = machine.port();
    let job = machine.host.start(Job::Echo {
        port,
        connections: 1,
        flood: None,
    })?;
    let id = machine.guest.open(port)?;
    let start = Start::now(&machine.device, &machine.guest)?;
    let latencies = turns(&mut machine.guest, id, count)?;
    let mut sample = start.sample(&machine.device, &machine.guest, count)?;
    sample.latencies = latencies;
    machine.guest.close(id)?;
    job.finish()?;
    Ok(sample)
}

/// Messages there and back, one after the other.
fn turns(guest: &mut Guest, id: Id, count: u64) -> Result<Latencies> {
    let pattern = Pattern::new();
    let mut durations = Vec::new();
    for turn in 0..count {
        let sent = clock::now()?;
        guest.send_all(id, pattern.at(turn, MESSAGE))?;
        let mut received = 0;
        while received < MESSAGE {
            match guest.next_within_limit()? {
                Event::Data(from) if from == id => {
                    pattern.check(turn + received as u64, guest.payload())?;
                    received += guest.payload().len();
                }
                Event::Ended(ended) if ended == id => bail!("the host has ended at turn {turn}"),
                _ => {}
            }
        }
        durations.push(clock::now()? - sent);
    }
    Ok(Latencies {
        packets: Latency::of(durations),
        bursts: None,
    })
}

fn host_asks(machine: &mut Machine, count: u64) -> Result<Sample> {
    let port = machine.port();
    let start = Start::now(&machine.device, &machine.guest)?;
    let size = MESSAGE;
    let job = machine.host.start(Job::Ask { port, size, count })?;
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
    let sample = start.sample(&machine.device, &machine.guest, count)?;
    Ok(sample.of_host(&job.finish()?))
}

fn guest_connects(machine: &mut Machine, count: u64) -> Result<Sample> {
    let port = machine.port();
    let job = machine.host.start(Job::Accept { port, count })?;
    let start = Start::now(&machine.device, &machine.guest)?;
    for _ in 0..count {
        let id = machine.guest.open(port)?;
        machine.guest.close(id)?;
    }
    let sample = start.sample(&machine.device, &machine.guest, count)?;
    job.finish()?;
    Ok(sample)
}

fn host_connects(machine: &mut Machine, count: u64) -> Result<Sample> {
    let port = machine.port();
    let start = Start::now(&machine.device, &machine.guest)?;
    let job = machine.host.start(Job::Connect { port, count })?;
    let mut ended = 0;
    while ended < count {
        if let Event::Ended(_) = machine.guest.next_within_limit()? {
            ended += 1;
        }
    }
    let sample = start.sample(&machine.device, &machine.guest, count)?;
    Ok(sample.of_host(&job.finish()?))
}

fn packets_to_host(machine: &mut Machine, plan: Plan) -> Result<Sample> {
    let port = machine.port();
    let job = machine.host.start(Job::Collect { port, plan })?;
    let id = machine.guest.open(port)?;
    let start = Start::now(&machine.device, &machine.guest)?;
    let mut packet = Pattern::new().at(0, plan.size).to_vec();
    let mut burst = start.time;
    for number in 0..plan.packets() {
        let due = Wait::Until(plan.due(number, start.time));
        if number % u64::from(plan.burst) == 0 {
            while machine.guest.next(due)?.is_some() {}
        }
        burst = plan.stamp(&mut packet, number, burst)?;
        machine.guest.send_all(id, &packet)?;
    }
    let report = job.finish()?;
    let sample = start.sample(&machine.device, &machine.guest, plan.packets())?;
    machine.guest.close(id)?;
    Ok(sample.of_host(&report))
}

fn packets_to_guest(machine: &mut Machine, plan: Plan) -> Result<Sample> {
    let port = machine.port();
    let start = Start::now(&machine.device, &machine.guest)?;
    let job = machine.host.start(Job::Pace { port, plan })?;
    let id = machine.guest.accept()?;
    let mut collection = Collection::new(plan);
    let mut waiting = Vec::new();
    while !collection.is_complete() {
        match machine.guest.next_within_limit()? {
            Event::Data(_) => waiting.extend_from_slice(machine.guest.payload()),
            Event::Ended(_) => bail!("the host has ended"),
            Event::Opened(_) | Event::Credit(_) => {}
        }
        let whole = waiting.len() - waiting.len() % plan.size;
        for packet in waiting[..whole].chunks(plan.size) {
            collection.add(packet)?;
        }
        waiting.drain(..whole);
    }
    let sample = start.sample(&machine.device, &machine.guest, plan.packets())?;
    machine.guest.close(id)?;
    let mut sample = sample.of_host(&job.finish()?);
    sample.latencies = collection.latencies();
    Ok(sample)
}

/// A connection with requests: where it is in its stream, and when each was sent.
#[derive(Default)]
struct Client {
    received: u64,
    sent: u64,
    under_way: VecDeque<Nanos>,
}

impl Client {
    fn ask(&mut self, guest: &mut Guest, id: Id, pattern: &Pattern) -> Result<()> {
        self.under_way.push_back(clock::now()?);
        let sent = guest.send(id, pattern.at(self.sent, REQUEST))?;
        ensure!(sent == REQUEST, "the device has no room for a request");
        self.sent += REQUEST as u64;
        Ok(())
    }

    /// Takes a part of the answers; how long those took that are complete by it.
    fn hear(&mut self, payload: &[u8], pattern: &Pattern, took: &mut Vec<Nanos>) -> Result<usize> {
        pattern.check(self.received, payload)?;
        let before = self.received / REQUEST as u64;
        self.received += payload.len() as u64;
        let complete = usize::try_from(self.received / REQUEST as u64 - before)?;
        let now = clock::now()?;
        took.extend(self.under_way.drain(..complete).map(|sent| now - sent));
        Ok(complete)
    }
}

fn requests(machine: &mut Machine, count: u64, beside: Beside) -> Result<Sample> {
    let port = machine.port();
    let pattern = Pattern::new();
    let job = machine.host.start(Job::Echo {
        port,
        connections: CLIENTS,
        flood: (beside == Beside::Bulk).then_some(port),
    })?;
    let flood = match beside {
        Beside::Nothing => None,
        Beside::Bulk => Some(machine.guest.accept()?),
    };
    let mut clients = HashMap::new();
    while clients.len() < CLIENTS as usize {
        // What the flood brings by now is not looked at.
        clients.insert(machine.guest.open(port)?, Client::default());
    }
    let start = Start::now(&machine.device, &machine.guest)?;
    let (mut asked, mut flooded, mut took) = (0, 0, Vec::new());
    for (id, client) in &mut clients {
        for _ in 0..WINDOW {
            client.ask(&mut machine.guest, *id, &pattern)?;
            asked += 1;
        }
    }
    while (took.len() as u64) < count {
        match machine.guest.next_within_limit()? {
            Event::Data(id) if Some(id) == flood => flooded += machine.guest.payload().len(),
            Event::Data(id) => {
                let client = clients.get_mut(&id);
                let client = client.filter(|client| !client.under_way.is_empty());
                let Some(client) = client else {
                    bail!("an answer came that was not asked for");
                };
                let complete = client.hear(machine.guest.payload(), &pattern, &mut took)?;
                for _ in 0..complete {
                    if asked < count {
                        client.ask(&mut machine.guest, id, &pattern)?;
                        asked += 1;
                    }
                }
            }
            Event::Ended(_) => bail!("the host has ended"),
            Event::Opened(_) | Event::Credit(_) => {}
        }
    }
    let mut sample = start.sample(&machine.device, &machine.guest, took.len() as u64)?;
    sample.latencies.packets = Latency::of(took);
    sample.beside = flood.map(|_| flooded as f64);
    for id in flood.iter().chain(clients.keys()) {
        machine.guest.close(*id)?;
    }
    job.finish()?;
    Ok(sample)
}

fn idle(machine: &mut Machine, connections: u32, count: u64) -> Result<Sample> {
    let port = machine.port();
    let job = machine.host.start(Job::Hold { port, connections })?;
    let mut last = machine.guest.open(port)?;
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
    let start = Start::now(&machine.device, &machine.guest)?;
    let until = Wait::Until(start.time + IDLE);
    while machine.guest.next(until)?.is_some() {}
    let quiet = start.sample(&machine.device, &machine.guest, 1)?;
    let start = Start::now(&machine.device, &machine.guest)?;
    let latencies = turns(&mut machine.guest, last, count)?;
    let mut sample = start.sample(&machine.device, &machine.guest, count)?;
    sample.latencies = latencies;
    sample.idle_core = Some(quiet.device.cpu / quiet.seconds);
    machine.guest.close(last)?;
    job.finish()?;
    Ok(sample)
}

// A write is a part of the pattern.
const _: () = assert!(REQUEST <= pattern::MAX && MESSAGE <= pattern::MAX);
