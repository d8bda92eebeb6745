// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Backends and streams on an event loop.

#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]
#![expect(
    clippy::print_stderr,
    reason = "a test says where a limit makes it smaller"
)]

mod accepting;
mod batches;
mod compliance;
mod ending;
mod faces;
mod flow;
mod machine;
mod many;
mod panics;
mod services;
mod timers;

use std::fmt::Debug;
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Duration;

use vsock_backend_api::VsockStream;
use vsock_compliance::poll::{Deadline, PollInterest, is_readable, wait_ready, wait_until};
use vsock_compliance::{BoxedStream, PairSource};
use vsock_epoll::{
    After, StreamFailure, StreamHandler, StreamId, StreamLimits, StreamSubscriber, Streams,
};

/// Plenty for a machine under load.
const PATIENCE: Duration = Duration::from_secs(20);

fn soon() -> Deadline {
    Deadline::after(PATIENCE)
}

/// One turn of a wait: fails with what there is so far when the deadline has passed.
#[track_caller]
fn waiting(deadline: Deadline, so_far: impl Debug) {
    assert!(!deadline.passed(), "nothing more comes: {so_far:?}");
}

/// Runs what blocks on a thread of its own, and fails if it does not end in time.
#[track_caller]
fn in_time<R: Send + 'static>(what: impl FnOnce() -> R + Send + 'static) -> R {
    let running = thread::spawn(what);
    let ended = wait_until(soon(), || running.is_finished());
    ended.expect("what blocks has not ended");
    running.join().unwrap()
}

/// Turns the loop until it has nothing to do. One that spins never comes to that.
#[track_caller]
fn rest<H: StreamHandler>(subscriber: &mut StreamSubscriber<H>) {
    for _ in 0..10_000 {
        if !is_readable(subscriber.as_raw_fd()).unwrap() {
            return;
        }
        subscriber.dispatch().unwrap();
    }
    panic!("the loop never rests: {:?}", subscriber.counters());
}

/// Turns the loop until `done`, waiting for its descriptor.
#[track_caller]
fn until<H: StreamHandler>(
    subscriber: &mut StreamSubscriber<H>,
    mut done: impl FnMut(&mut StreamSubscriber<H>) -> bool,
) {
    let deadline = soon();
    while !done(subscriber) {
        waiting(deadline, subscriber.counters());
        wait_ready(subscriber.as_raw_fd(), PollInterest::Read, deadline).unwrap();
        subscriber.dispatch().unwrap();
    }
}

/// A pair whose application's end does not wait either.
fn pair(source: &dyn PairSource) -> (BoxedStream, BoxedStream) {
    let (mut application, device) = source.pair().unwrap();
    application.set_nonblocking(true).unwrap();
    (application, device)
}

/// What is there, and whether the end is.
fn read_all(stream: &mut dyn VsockStream) -> (Vec<u8>, bool) {
    let (mut got, mut buf) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut buf) {
            Ok(0) => return (got, true),
            Ok(read) => got.extend(&buf[..read]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return (got, false),
            Err(error) => panic!("after {} bytes: {error}", got.len()),
        }
    }
}

/// What a handler was told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Told {
    Readable,
    Writable,
    Ended,
    Gone,
    Failed(&'static str),
    Timer,
    Closed,
}

/// Keeps what it was told, and does what a test says when it is told that.
struct Recorder<F> {
    told: Vec<(Told, StreamId)>,
    got: Vec<u8>,
    act: F,
}

type Act = fn(&mut Streams<()>, StreamId, Told);

/// Keeps what it was told, reads everything, ends what has ended.
fn reader(limits: StreamLimits) -> StreamSubscriber<Recorder<Act>> {
    recorder(limits, |streams, id, told| {
        if told == Told::Ended {
            streams.finish(id);
        }
    })
}

fn recorder<F: FnMut(&mut Streams<()>, StreamId, Told)>(
    limits: StreamLimits,
    act: F,
) -> StreamSubscriber<Recorder<F>> {
    let (told, got) = (Vec::new(), Vec::new());
    StreamSubscriber::new(Recorder { told, got, act }, limits).unwrap()
}

impl<F: FnMut(&mut Streams<()>, StreamId, Told)> Recorder<F> {
    fn tell(&mut self, streams: &mut Streams<()>, id: StreamId, told: Told) {
        self.told.push((told, id));
        (self.act)(streams, id, told);
    }

    fn count(&self, what: Told) -> usize {
        self.told.iter().filter(|(told, _)| *told == what).count()
    }
}

impl<F: FnMut(&mut Streams<()>, StreamId, Told)> StreamHandler for Recorder<F> {
    type State = ();

    fn readable(&mut self, streams: &mut Streams<()>, id: StreamId) {
        self.tell(streams, id, Told::Readable);
        let mut buf = [0; 1000];
        loop {
            let read = streams.read(id, &mut buf);
            if read == 0 {
                return;
            }
            self.got.extend(&buf[..read]);
        }
    }

    fn writable(&mut self, streams: &mut Streams<()>, id: StreamId) {
        self.tell(streams, id, Told::Writable);
    }

    fn ended(&mut self, streams: &mut Streams<()>, id: StreamId) {
        self.tell(streams, id, Told::Ended);
    }

    fn peer_gone(&mut self, streams: &mut Streams<()>, id: StreamId) {
        self.tell(streams, id, Told::Gone);
    }

    fn failed(&mut self, streams: &mut Streams<()>, id: StreamId, failure: StreamFailure) -> After {
        let name = match failure {
            StreamFailure::Read(_) => "read",
            StreamFailure::Write(_) => "write",
            StreamFailure::PeerGone => "gone",
            StreamFailure::Idle => "idle",
            _ => "other",
        };
        self.tell(streams, id, Told::Failed(name));
        After::Close
    }

    fn timer(&mut self, streams: &mut Streams<()>, id: StreamId) {
        self.tell(streams, id, Told::Timer);
    }

    fn closed(&mut self, streams: &mut Streams<()>, id: StreamId, (): ()) {
        self.tell(streams, id, Told::Closed);
    }
}
