// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! An echo on an event loop, with many streams.

use std::hint::black_box;
use std::io;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use event_manager::{EventManager, SubscriberId, SubscriberOps};
use serde::{Deserialize, Serialize};
use vsock_backend_api::VsockStream;
use vsock_epoll::services::Echo;
use vsock_epoll::{StreamLimits, StreamSubscriber};
use vsock_inner::VsockInnerStream;

use crate::sample::{Sample, alone, together};
use crate::workload::ping_pong::SIZE;
use vsock_report::{Place, allow_descriptors, thread_processor_time};

/// Both ends of a connection, the device's second.
type Pair = (Box<dyn VsockStream>, Box<dyn VsockStream>);
/// Makes a connection.
pub(crate) type Make = fn() -> io::Result<Pair>;

/// How many of the streams are busy.
const BUSY: usize = 10;
/// Descriptors that are left for everything else.
const SPARE_DESCRIPTORS: usize = 200;

/// What a loop costs while none of its streams does anything.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct IdleLoop {
    /// How many there were: as many as asked for, or as the limit of descriptors lets be.
    pub(crate) streams: usize,
    /// How long it was watched.
    pub(crate) seconds: f64,
    /// Processor time of the loop's thread meanwhile.
    pub(crate) processor_seconds: f64,
    /// How often the streams were looked at meanwhile.
    pub(crate) wakeups: u64,
}

/// A pair of Unix sockets.
pub(crate) fn unix() -> io::Result<Pair> {
    let (host, device) = UnixStream::pair()?;
    Ok((Box::new(host), Box::new(device)))
}

/// An in-process connection.
pub(crate) fn inner() -> io::Result<Pair> {
    let (host, device) = VsockInnerStream::pair()?;
    Ok((Box::new(host), Box::new(device)))
}

/// The loop, as a VMM has it.
struct Loop {
    manager: EventManager<StreamSubscriber<Echo>>,
    id: SubscriberId,
}

impl Loop {
    /// With this many streams, or as many as there are descriptors for; and their other ends.
    fn with(make: Make, streams: usize) -> io::Result<(Self, Vec<Box<dyn VsockStream>>)> {
        let echo = StreamSubscriber::new(Echo::new(), StreamLimits::default());
        let mut echo = echo.map_err(io::Error::other)?;
        allow_descriptors((2 * streams + SPARE_DESCRIPTORS) as u64)?;
        let mut hosts = Vec::new();
        for _ in 0..streams {
            // At the limit of descriptors there are fewer, which shows a slope as well.
            let (host, device) = match make() {
                Err(_) if hosts.len() > streams / 2 => break,
                made => made?,
            };
            let added = echo.streams().add(device, ());
            added.map_err(|error| io::Error::other(error.refusal))?;
            hosts.push(host);
        }
        if hosts.len() < streams {
            hosts.truncate(hosts.len() - SPARE_DESCRIPTORS / 2); // what follows needs some
        }
        let mut manager = EventManager::new().map_err(io::Error::other)?;
        let id = manager.add_subscriber(echo);
        let mut looping = Self { manager, id };
        while looping.echo()?.streams().len() > hosts.len() {
            looping.turn()?;
        }
        Ok((looping, hosts))
    }

    fn echo(&mut self) -> io::Result<&mut StreamSubscriber<Echo>> {
        self.manager
            .subscriber_mut(self.id)
            .map_err(io::Error::other)
    }

    fn turn(&mut self) -> io::Result<()> {
        self.manager.run().map(drop).map_err(io::Error::other)
    }

    /// For so long, whatever happens.
    fn rest(&mut self, time: Duration) -> io::Result<()> {
        let begin = Instant::now();
        let mut left = time;
        while !left.is_zero() {
            let millis = i32::try_from(left.as_millis()).unwrap_or(i32::MAX);
            let turn = self.manager.run_with_timeout(millis.saturating_add(1));
            turn.map_err(io::Error::other)?;
            left = time.saturating_sub(begin.elapsed());
        }
        Ok(())
    }

    /// Until this many bytes were echoed, or nobody is there.
    fn run_until(&mut self, bytes: u64) -> io::Result<()> {
        loop {
            let echo = self.echo()?;
            if echo.counters().bytes_out >= bytes || echo.streams().is_empty() {
                return Ok(());
            }
            self.turn()?;
        }
    }
}

/// Messages to ten of this many streams, and their echoes, on one thread: what an event costs.
pub(crate) fn events(make: Make, streams: usize, units: u64) -> io::Result<Sample> {
    let (mut looping, mut hosts) = Loop::with(make, streams)?;
    let step = (hosts.len() / BUSY).max(1);
    let rounds = units.div_ceil(BUSY as u64);
    alone(rounds * BUSY as u64, || {
        for round in 1..=rounds {
            for host in hosts.iter_mut().step_by(step).take(BUSY) {
                host.write_all(black_box(&[0x5a; SIZE]))?;
            }
            looping.run_until(round * (BUSY * SIZE) as u64)?;
            for host in hosts.iter_mut().step_by(step).take(BUSY) {
                host.read_exact(black_box(&mut [0; SIZE]))?;
            }
        }
        Ok(())
    })
}

/// This many streams that do nothing, for so long.
pub(crate) fn idle(make: Make, streams: usize, time: Duration) -> io::Result<IdleLoop> {
    let (mut looping, hosts) = Loop::with(make, streams)?;
    // With what the kernel has put off while streams were made.
    looping.rest(Duration::from_millis(50))?;
    let wakeups = looping.echo()?.counters().wakeups;
    let processor_time = thread_processor_time()?;
    let begin = Instant::now();
    looping.rest(time)?;
    let processor_time = thread_processor_time()?.saturating_sub(processor_time);
    let seconds = begin.elapsed().as_secs_f64();
    let idle = IdleLoop {
        streams: hosts.len(),
        seconds,
        processor_seconds: processor_time.as_secs_f64(),
        wakeups: looping.echo()?.counters().wakeups - wakeups,
    };
    drop(hosts);
    Ok(idle)
}

/// Round trips of this many clients, all of whom ask before the first one looks for its answer.
pub(crate) fn echoes(make: Make, place: Place, clients: usize, units: u64) -> io::Result<Sample> {
    let (mut looping, mut hosts) = Loop::with(make, clients)?;
    let rounds = units.div_ceil(clients as u64);
    let units = rounds * clients as u64;
    together(
        units,
        place,
        move || {
            for _ in 0..rounds {
                for host in &mut hosts {
                    host.write_all(black_box(&[0x5a; SIZE]))?;
                }
                for host in &mut hosts {
                    host.read_exact(black_box(&mut [0; SIZE]))?;
                }
            }
            Ok(hosts)
        },
        move || looping.run_until(units * SIZE as u64).map(|()| looping),
    )
}
