// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One round: connect, send, echo, receive; timed, with the system calls of all three threads.

use std::io;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use vsock_muxer::MuxerCounters;
use vsock_report::{Progress, SystemCallCounter, SystemCallError, receive};

use crate::way::{Connected, Way};

/// What a round took, and what passed between device and guest, if there is one.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) time: Duration,
    /// System calls of all threads, or why they were not counted.
    pub(crate) calls: Result<u64, String>,
    pub(crate) counters: Option<MuxerCounters>,
}

/// Sends `bytes` there and back; returns what came.
pub(crate) fn run(
    way: Way,
    bytes: &[u8],
    progress: &Progress,
) -> anyhow::Result<(Outcome, Vec<u8>)> {
    let connected = way.connect().context("cannot connect")?;
    let Connected {
        mut reader,
        mut writer,
        service,
    } = connected;
    let mut back = vec![1; bytes.len()]; // its pages are there before the clock starts
    let (ready, stop) = (Barrier::new(3), AtomicBool::new(false));
    let mut start = Instant::now();
    let (service, sender, receiver) = thread::scope(|scope| {
        let service = scope.spawn(|| counted(&ready, || service(&stop)));
        let sender = scope.spawn(|| {
            counted(&ready, || {
                vsock_report::send(&mut writer, bytes)?;
                writer.finish()
            })
        });
        let receiver = counted(&ready, || {
            start = Instant::now();
            receive(&mut reader, &mut back, progress)
        });
        // ORDER: Relaxed; partner: the load in `service::in_guest`, which only ends sooner or later
        // by it.
        stop.store(true, Ordering::Relaxed);
        (service.join(), sender.join(), receiver)
    });
    let panicked = |_| anyhow!("a thread has panicked");
    let (service, sender) = (service.map_err(panicked)?, sender.map_err(panicked)?);
    let time = sender.finished.max(receiver.finished) - start;
    let counters = service.result.context("the service failed")?;
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
    Ok((
        Outcome {
            time,
            calls,
            counters,
        },
        back,
    ))
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
