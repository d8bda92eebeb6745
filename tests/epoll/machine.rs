// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Random operations from two threads, whose combined effects are checked at the end.

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex};
use std::thread;

use proptest::collection::vec;
use proptest::prelude::{
    Just, ProptestConfig, Strategy, prop_assert, prop_assert_eq, prop_oneof, proptest,
};
use vsock_backend_api::VsockStream;
use vsock_compliance::poll::{PollInterest, wait_ready};
use vsock_epoll::{StreamHandler, StreamId, StreamLimits, StreamSubscriber, Streams, Trigger};
use vsock_inner::VsockInnerStream;
use vsock_tests::inner::Inner;

use crate::{soon, waiting};

#[derive(Clone, Copy, Debug)]
enum Op {
    Add,
    Close(usize),
    /// The loop's end writes.
    Write(usize, usize),
    /// The host's end writes.
    Send(usize, usize),
    /// The host's end reads what is there.
    Take(usize),
    /// The host's end is dropped.
    Drop(usize),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        3 => Just(Op::Add),
        1 => (0..8_usize).prop_map(Op::Close),
        6 => (0..8_usize, 1..300_usize).prop_map(|(at, len)| Op::Write(at, len)),
        4 => (0..8_usize, 1..300_usize).prop_map(|(at, len)| Op::Send(at, len)),
        3 => (0..8_usize).prop_map(Op::Take),
        1 => (0..8_usize).prop_map(Op::Drop),
    ];
    vec(op, 0..60)
}

/// Reads everything and counts it. Records the streams that were reported closed.
#[derive(Default)]
struct Sink {
    closed: Vec<StreamId>,
}

impl StreamHandler for Sink {
    type State = ();

    fn readable(&mut self, streams: &mut Streams<()>, id: StreamId) {
        while streams.read(id, &mut [0; 64]) > 0 {}
    }

    fn closed(&mut self, _: &mut Streams<()>, id: StreamId, (): ()) {
        self.closed.push(id);
    }
}

type Shared = Arc<Mutex<StreamSubscriber<Sink>>>;

/// A stream, the host's end, and the bytes that the host must receive.
struct Pair {
    id: StreamId,
    host: Option<VsockInnerStream>,
    accepted: u64,
    got: u64,
    closed: bool,
}

fn take(pair: &mut Pair) {
    let mut buf = [0; 1000];
    if let Some(host) = &mut pair.host {
        while let Ok(read @ 1..) = host.read(&mut buf) {
            for byte in &buf[..read] {
                assert_eq!(u64::from(*byte), pair.got % 251, "byte {}", pair.got);
                pair.got += 1;
            }
        }
    }
}

fn act(shared: &Shared, pairs: &mut Vec<Pair>, op: Op) {
    if let Op::Add = op {
        let config = Inner::holding(100).config;
        let (mut host, device) = VsockInnerStream::pair_with(&config).unwrap();
        host.set_nonblocking(true).unwrap();
        let id = shared
            .lock()
            .unwrap()
            .streams()
            .add(Box::new(device), ())
            .unwrap();
        let (accepted, got, closed) = (0, 0, false);
        let host = Some(host);
        return pairs.push(Pair {
            id,
            host,
            accepted,
            got,
            closed,
        });
    }
    let (Op::Close(at) | Op::Write(at, _) | Op::Send(at, _) | Op::Take(at) | Op::Drop(at)) = op
    else {
        return;
    };
    let Some(pair) = pairs.get_mut(at) else {
        return;
    };
    match op {
        Op::Close(_) => {
            shared.lock().unwrap().streams().close(pair.id);
            pair.closed = true;
        }
        Op::Write(_, len) => {
            let bytes: Vec<u8> = (pair.accepted..)
                .take(len)
                .map(|at| (at % 251) as u8)
                .collect();
            pair.accepted += shared.lock().unwrap().streams().write(pair.id, &bytes) as u64;
        }
        Op::Send(_, len) => {
            pair.host.as_mut().map(|host| host.write(&vec![9; len]));
        }
        Op::Take(_) => take(pair),
        Op::Drop(_) => pair.host = None,
        Op::Add => {}
    }
}

fn turn(shared: &Shared, fd: i32) {
    wait_ready(fd, PollInterest::Read, soon()).unwrap();
    shared.lock().unwrap().dispatch().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None, // every run has another interleaving: a failure does not repeat
        max_shrink_time: 10_000, // a case that hangs takes until its deadline
        ..ProptestConfig::default()
    })]

    #[test]
    fn accepted_bytes_arrive_and_no_resource_is_left_whatever_two_threads_do(
        left in ops(),
        right in ops(),
        edge: bool,
    ) {
        let trigger = if edge { Trigger::Edge } else { Trigger::Level };
        let limits = StreamLimits::default().trigger(trigger).backlog(150).turn(70).events(3);
        let subscriber = StreamSubscriber::new(Sink::default(), limits).unwrap();
        let fd = subscriber.as_raw_fd();
        let shared: Shared = Arc::new(Mutex::new(subscriber));
        let worker = |ops: Vec<Op>| {
            let shared = Arc::clone(&shared);
            move || {
                let mut pairs = Vec::new();
                ops.into_iter().for_each(|op| act(&shared, &mut pairs, op));
                pairs
            }
        };
        let mut pairs: Vec<Pair> = Vec::new();
        thread::scope(|scope| {
            let threads = [scope.spawn(worker(left)), scope.spawn(worker(right))];
            let deadline = soon();
            while !threads.iter().all(|thread| thread.is_finished()) {
                waiting(deadline, shared.lock().unwrap().counters());
                shared.lock().unwrap().dispatch().unwrap();
            }
            for thread in threads {
                pairs.extend(thread.join().unwrap());
            }
        });
        shared.lock().unwrap().streams().drain(None);
        let deadline = soon();
        while !shared.lock().unwrap().streams().is_finished() {
            waiting(deadline, shared.lock().unwrap().counters());
            pairs.iter_mut().for_each(take);
            turn(&shared, fd);
        }
        pairs.iter_mut().for_each(take);
        for pair in &mut pairs {
            let Some(host) = &mut pair.host else { continue };
            if pair.closed {
                prop_assert!(pair.got <= pair.accepted);
            } else {
                prop_assert_eq!(pair.got, pair.accepted);
                prop_assert_eq!(host.read(&mut [0]).ok(), Some(0));
            }
        }
        let mut told = std::mem::take(&mut shared.lock().unwrap().handler().closed);
        told.sort_unstable();
        told.dedup();
        prop_assert_eq!(told.len(), pairs.len(), "each close is reported once");
        let counters = shared.lock().unwrap().counters();
        prop_assert_eq!(counters.accepts, counters.closes);
        prop_assert_eq!(counters.closes, pairs.len() as u64);
    }
}
