// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One run of one row: two threads, their work, and its cost.

use std::io;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use vsock_report::{Place, Side, SystemCallCounter, thread_switches};

/// The work and cost of one run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// Bytes carried, or operations done.
    pub(crate) units: u64,
    /// From the start of the first thread to the end of the last one.
    pub(crate) elapsed: Duration,
    /// Of both threads; `None` if they were not counted.
    pub(crate) system_calls: Option<u64>,
    /// Of both threads.
    pub(crate) switches: u64,
}

/// Whether runs count their system calls.
static COUNTING: AtomicBool = AtomicBool::new(false);

/// Runs `work`, in which runs count their system calls. Timed runs do not count, because counting
/// slows the kernel down.
pub(crate) fn counted<T>(work: impl FnOnce() -> T) -> T {
    // ORDER: Relaxed; partner: `counter`, on this thread or on one that it starts.
    COUNTING.store(true, Ordering::Relaxed);
    let result = work();
    // ORDER: Relaxed; partner: as above.
    COUNTING.store(false, Ordering::Relaxed);
    result
}

/// Returns how system calls are counted here, or why they are not.
pub(crate) fn counting() -> String {
    match SystemCallCounter::open() {
        Ok(_) => "counted by the kernel, tracepoint raw_syscalls:sys_enter".to_owned(),
        Err(why) => format!("not counted: {why}"),
    }
}

fn counter() -> Option<SystemCallCounter> {
    // ORDER: Relaxed; partner: `counted`, on this thread or on the one that started it.
    let counting = COUNTING.load(Ordering::Relaxed);
    counting.then(|| SystemCallCounter::open().ok()).flatten()
}

/// The cost of one thread of a run.
struct Spent {
    begin: Instant,
    end: Instant,
    system_calls: Option<u64>,
    switches: u64,
}

/// Runs `left` and `right` at the same time, each on its own thread, on the cores of `place`.
///
/// The results are dropped after both are done, so closing is not part of the measurement.
/// A side that fails drops its end, which ends the other one.
pub(crate) fn together<L: Send, R: Send>(
    units: u64,
    place: Place,
    left: impl FnOnce() -> io::Result<L> + Send,
    right: impl FnOnce() -> io::Result<R> + Send,
) -> io::Result<Sample> {
    let gate = Barrier::new(2);
    let (left, right) = thread::scope(|scope| {
        let left = scope.spawn(|| measured(place, Side::Left, &gate, left));
        let right = scope.spawn(|| measured(place, Side::Right, &gate, right));
        (left.join(), right.join())
    });
    let died = |_| io::Error::other("a thread of the bench panicked");
    let (left, _left_end) = left.map_err(died)??;
    let (right, _right_end) = right.map_err(died)??;
    let begin = left.begin.min(right.begin);
    let end = left.end.max(right.end);
    Ok(Sample {
        units,
        elapsed: end - begin,
        system_calls: (left.system_calls.zip(right.system_calls)).map(|(l, r)| l + r),
        switches: left.switches + right.switches,
    })
}

/// Runs `work` on the calling thread alone.
pub(crate) fn alone(units: u64, work: impl FnOnce() -> io::Result<()>) -> io::Result<Sample> {
    let (spent, ()) = spend(counter(), work)?;
    Ok(Sample {
        units,
        elapsed: spent.end - spent.begin,
        system_calls: spent.system_calls,
        switches: spent.switches,
    })
}

/// Runs `work` as [`alone`] does, if other threads do the work; their system calls are not counted.
pub(crate) fn of_process(units: u64, work: impl FnOnce() -> io::Result<()>) -> io::Result<Sample> {
    let switches = || -> io::Result<u64> {
        let usage = getrusage(UsageWho::RUSAGE_SELF)?;
        let all = usage.voluntary_context_switches() + usage.involuntary_context_switches();
        Ok(all.unsigned_abs())
    };
    let before = switches()?;
    let begin = Instant::now();
    work()?;
    Ok(Sample {
        units,
        elapsed: begin.elapsed(),
        system_calls: None,
        switches: switches()? - before,
    })
}

fn measured<T>(
    place: Place,
    side: Side,
    gate: &Barrier,
    work: impl FnOnce() -> io::Result<T>,
) -> io::Result<(Spent, T)> {
    let placed = place.take(side);
    let counter = counter();
    gate.wait(); // before any return, or the other side blocks indefinitely
    placed?;
    spend(counter, work)
}

fn spend<T>(
    mut counter: Option<SystemCallCounter>,
    work: impl FnOnce() -> io::Result<T>,
) -> io::Result<(Spent, T)> {
    let before = thread_switches()?;
    if let Some(counter) = &mut counter {
        counter.start().map_err(io::Error::other)?;
    }
    let begin = Instant::now();
    let result = work()?;
    let end = Instant::now();
    let system_calls = counter
        .map(|mut counter| counter.stop().map_err(io::Error::other))
        .transpose()?;
    let spent = Spent {
        begin,
        end,
        system_calls,
        switches: thread_switches()? - before,
    };
    Ok((spent, result))
}
