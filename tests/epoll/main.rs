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
mod one_descriptor;
mod panics;
mod services;
mod timers;

use std::fmt::Debug;
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use event_manager::{EventManager, SubscriberOps};
use vsock_backend_api::VsockStream;
use vsock_compliance::poll::{Deadline, PollInterest, is_readable, wait_ready, wait_until};
use vsock_compliance::{BoxedStream, PairSource};
use vsock_epoll::services::Echo;
use vsock_epoll::{
    After, RemoteHandle, StreamFailure, StreamHandler, StreamId, StreamLimits, StreamSubscriber,
    Streams,
};

/// The limit of a wait in a test, long enough for a loaded machine.
const DEADLINE: Duration = Duration::from_secs(20);

fn soon() -> Deadline {
    Deadline::after(DEADLINE)
}

/// How long an event manager waits in one turn, in milliseconds. Deadlines are checked between
/// turns.
const TURN: i32 = 100;

/// Checks the deadline in one turn of a wait. Fails with the progress so far.
#[track_caller]
fn waiting(deadline: Deadline, so_far: impl Debug) {
    assert!(!deadline.passed(), "no more progress: {so_far:?}");
}

/// Runs a blocking call on a separate thread, and fails if it does not end in time.
#[track_caller]
fn in_time<R: Send + 'static>(what: impl FnOnce() -> R + Send + 'static) -> R {
    let running = thread::spawn(what);
    let ended = wait_until(soon(), || running.is_finished());
    ended.expect("the call ends in time");
    running.join().unwrap()
}

/// Runs the loop until it has nothing to do. A loop that spins never gets there.
#[track_caller]
fn rest<H: StreamHandler>(subscriber: &mut StreamSubscriber<H>) {
    for _ in 0..10_000 {
        if !is_readable(subscriber.as_raw_fd()).unwrap() {
            return;
        }
        subscriber.dispatch().unwrap();
    }
    panic!("the loop spins: {:?}", subscriber.counters());
}

/// Runs the loop until `done`, waiting for its descriptor.
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

/// Returns a pair in which both ends are non-blocking.
fn pair(source: &dyn PairSource) -> (BoxedStream, BoxedStream) {
    let (mut application, device) = source.pair().unwrap();
    application.set_nonblocking(true).unwrap();
    (application, device)
}

type Manager = EventManager<StreamSubscriber<Echo>>;
type Remote = RemoteHandle<StreamSubscriber<Echo>, Echo>;
type Find = fn(&mut StreamSubscriber<Echo>) -> Option<&mut StreamSubscriber<Echo>>;

/// Runs a manager with one subscriber on a thread until it is `done`. Also returns the source of
/// its handles.
fn looping(
    done: fn(&mut StreamSubscriber<Echo>) -> bool,
) -> (impl Fn(Find) -> Remote, JoinHandle<Manager>) {
    let mut manager = EventManager::new().unwrap();
    let echo = StreamSubscriber::new(Echo::new(), StreamLimits::default()).unwrap();
    let id = manager.add_subscriber(echo);
    let endpoint = manager.remote_endpoint();
    let looping = thread::spawn(move || {
        let deadline = soon();
        while !done(manager.subscriber_mut(id).unwrap()) {
            waiting(deadline, "the loop is not done");
            manager.run_with_timeout(TURN).unwrap();
        }
        manager
    });
    let remote = move |find| RemoteHandle::new(endpoint.clone(), id, find);
    (remote, looping)
}

/// Adds the device's end of a new [pair] to the loop. Returns the application's end and the
/// stream's identifier.
fn add<H: StreamHandler<State: Default>>(
    subscriber: &mut StreamSubscriber<H>,
    source: &dyn PairSource,
) -> (BoxedStream, StreamId) {
    let (application, device) = pair(source);
    let added = subscriber.streams().add(device, H::State::default());
    (application, added.unwrap())
}

/// Returns a [reader] with the default limits, and one stream of it.
fn served(source: &dyn PairSource) -> (StreamSubscriber<Recorder<Act>>, BoxedStream, StreamId) {
    let mut subscriber = reader(StreamLimits::default());
    let (application, id) = add(&mut subscriber, source);
    (subscriber, application, id)
}

/// Reads everything until the end, while the loop runs.
#[track_caller]
fn read_to_end<H: StreamHandler>(
    subscriber: &mut StreamSubscriber<H>,
    stream: &mut dyn VsockStream,
) -> Vec<u8> {
    let (mut got, deadline) = (Vec::new(), soon());
    loop {
        waiting(deadline, got.len());
        rest(subscriber);
        let (more, ended) = read_all(stream);
        got.extend(more);
        if ended {
            return got;
        }
    }
}

/// Reads everything available. Also returns whether the end was reached.
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

/// A call of the handler.
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

/// Records the calls of the handler, and reacts to each as the test says.
struct Recorder<F> {
    told: Vec<(Told, StreamId)>,
    got: Vec<u8>,
    act: F,
}

type Act = fn(&mut Streams<()>, StreamId, Told);

/// Creates a recorder that reads everything and ends streams that have ended.
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
