// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! An echo service on an event loop, with many streams.

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

/// Both ends of a connection; the device end is the second one.
type Pair = (Box<dyn VsockStream>, Box<dyn VsockStream>);
/// Opens a connection.
pub(crate) type Make = fn() -> io::Result<Pair>;

/// How many of the streams are busy.
const BUSY: usize = 10;
/// Descriptors that remain for the rest of the process.
const SPARE_DESCRIPTORS: usize = 200;

/// The cost of a loop whose streams are all idle.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct IdleLoop {
    /// How many there were: the requested number, or fewer if the limit of descriptors is lower.
    pub(crate) streams: usize,
    /// How long it was observed.
    pub(crate) seconds: f64,
    /// CPU time of the loop's thread in that time.
    pub(crate) processor_seconds: f64,
    /// How often the streams were woken in that time.
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

/// The loop, as in a VMM.
struct Loop {
    manager: EventManager<StreamSubscriber<Echo>>,
    id: SubscriberId,
}

impl Loop {
    /// Returns a loop with `streams` streams, or fewer if descriptors run out, and the other
    /// ends.
    fn with(make: Make, streams: usize) -> io::Result<(Self, Vec<Box<dyn VsockStream>>)> {
        let echo = StreamSubscriber::new(Echo::new(), StreamLimits::default());
        let mut echo = echo.map_err(io::Error::other)?;
        allow_descriptors((2 * streams + SPARE_DESCRIPTORS) as u64)?;
        let mut hosts = Vec::new();
        for _ in 0..streams {
            // Fewer streams than requested show the same slope.
            let (host, device) = match make() {
                Err(_) if hosts.len() > streams / 2 => break,
                made => made?,
            };
            let added = echo.streams().add(device, ());
            added.map_err(|error| io::Error::other(error.refusal))?;
            hosts.push(host);
        }
        if hosts.len() < streams {
            hosts.truncate(hosts.len() - SPARE_DESCRIPTORS / 2); // the loop needs some
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

    /// Runs for `time`.
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

    /// Runs until `bytes` bytes were echoed, or all clients are gone.
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

/// Sends messages to ten of `streams` streams and reads the echoes, on one thread: the cost of an
/// event.
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

/// Observes `streams` idle streams for `time`.
pub(crate) fn idle(make: Make, streams: usize, time: Duration) -> io::Result<IdleLoop> {
    let (mut looping, hosts) = Loop::with(make, streams)?;
    looping.rest(Duration::from_millis(50))?; // for work that the kernel has deferred
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

/// Measures round trips of `clients` clients. All of them send before the first one reads.
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
