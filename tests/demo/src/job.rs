// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One round: connect, send, echo, receive; timed, with the system calls of all three threads.

use std::io;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use vsock_report::{Progress, SystemCallCounter, SystemCallError, receive};

use crate::echo::{Echo, Service};
use crate::transport::{self, Transport};

/// What a round took.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) time: Duration,
    /// System calls of all threads, or why they were not counted.
    pub(crate) calls: Result<u64, String>,
}

/// Sends `bytes` there and back; returns what came.
pub(crate) fn run(
    transport: &dyn Transport,
    bytes: &[u8],
    progress: &Progress,
) -> anyhow::Result<(Outcome, Vec<u8>)> {
    let mut connected = transport.connect().context("cannot connect")?;
    let mut back = vec![0; bytes.len()];
    back.fill(1); // its pages are there before the clock starts
    let mut echo = Echo::new().context("the service has no event loop")?;
    let ready = Barrier::new(3);
    let mut start = Instant::now();
    let results = thread::scope(|scope| {
        let service = scope.spawn(|| counted(&ready, || echo.serve(connected.device)));
        let sender = scope.spawn(|| counted(&ready, || transport::send(connected.writer, bytes)));
        let receiver = counted(&ready, || {
            start = Instant::now();
            receive(&mut connected.reader, &mut back, progress)
        });
        (join(service), join(sender), receiver)
    });
    let (service, sender, receiver) = results;
    let (service, sender) = (service?, sender?);
    let finished = service.finished.max(sender.finished).max(receiver.finished);
    let time = finished - start;
    service.result.context("the service failed")?;
    sender.result.context("sending failed")?;
    let received = receiver.result.context("receiving failed")?;
    ensure!(
        received == bytes.len(),
        "{received} bytes came back, {} were sent",
        bytes.len()
    );
    let calls = [service.calls, sender.calls, receiver.calls];
    let calls = calls
        .into_iter()
        .sum::<Result<u64, _>>()
        .map_err(|error| error.to_string());
    Ok((Outcome { time, calls }, back))
}

/// What a thread has done: its result, its system calls, and when it was finished.
struct Counted<T> {
    result: io::Result<T>,
    calls: Result<u64, SystemCallError>,
    finished: Instant,
}

/// Works once all threads are ready, which it takes a while to be: counters are slow to open.
fn counted<T>(ready: &Barrier, work: impl FnOnce() -> io::Result<T>) -> Counted<T> {
    let counter = SystemCallCounter::open();
    ready.wait();
    let counter = counter.and_then(|mut counter| {
        counter.start()?;
        Ok(counter)
    });
    let result = work();
    let finished = Instant::now(); // closing the counter is slow too
    let calls = counter.and_then(|mut counter| counter.stop());
    Counted {
        result,
        calls,
        finished,
    }
}

fn join<T>(thread: thread::ScopedJoinHandle<'_, T>) -> anyhow::Result<T> {
    thread.join().map_err(|_| anyhow!("a thread has panicked"))
}
