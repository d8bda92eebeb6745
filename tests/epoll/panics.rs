// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Handlers, streams and backends that panic, and streams that report more bytes than they were
//! offered.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::sync::Arc;
use std::thread;

use vsock_backend_api::VsockStream;
use vsock_driver::{Call, Temper};
use vsock_epoll::services::{Echo, Lines, Proxy, Reply};
use vsock_epoll::{
    AcceptHandler, AcceptLimits, BackendSubscriber, More, StreamId, StreamLimits, StreamSubscriber,
    Streams, Trigger,
};
use vsock_inner::{Capacity, VsockInnerBackend};
use vsock_tests::assert_fails;
use vsock_tests::inner::{Inner, Way};

use crate::{Told, add, looping, pair, read_all, recorder, rest, soon, waiting};

#[test]
fn a_panic_closes_only_its_stream_and_leaks_no_resource() {
    let witness = Arc::new(());
    let kept = Arc::clone(&witness);
    let mut victim: Option<StreamId> = None;
    let mut subscriber = recorder(StreamLimits::default(), |_: &mut Streams<()>, id, told| {
        let _kept = &kept;
        if told == Told::Readable && victim.is_none() {
            victim = Some(id);
            panic!("this handler panics on purpose");
        }
    });
    let (mut one, _) = add(&mut subscriber, &Inner::by(Way::Pair));
    let (mut two, _) = add(&mut subscriber, &Inner::by(Way::Pair));
    one.write_all(b"one").unwrap();
    two.write_all(b"two").unwrap();
    rest(&mut subscriber);
    assert_eq!(subscriber.counters().panics, 1);
    assert_eq!(subscriber.streams().len(), 1);
    assert_eq!(subscriber.handler().count(Told::Closed), 1);
    assert_eq!(subscriber.handler().got.len(), 3);
    let gone = [one.peer_gone(), two.peer_gone()];
    assert_eq!(gone.iter().filter(|gone| **gone).count(), 1);
    drop(subscriber);
    assert!(one.peer_gone() && two.peer_gone());
    drop(kept);
    assert_eq!(Arc::strong_count(&witness), 1);
}

#[test]
fn a_panic_aborts_its_stream_even_if_everything_was_read() {
    let mut subscriber = recorder(StreamLimits::default(), |_: &mut Streams<()>, _, told| {
        assert_ne!(told, Told::Ended, "this handler panics on purpose");
    });
    let (mut host, _) = add(&mut subscriber, &Inner::by(Way::Pair));
    host.write_all(b"question").unwrap();
    host.shutdown(Shutdown::Write).unwrap();
    rest(&mut subscriber);
    assert_eq!(subscriber.counters().panics, 1);
    assert_fails(host.read(&mut [0]), ErrorKind::ConnectionReset);
}

#[test]
fn panics_in_every_call_close_every_stream() {
    let mut subscriber = recorder(StreamLimits::default(), |_: &mut Streams<()>, _, _| {
        panic!("this handler panics on purpose");
    });
    let mut hosts = Vec::new();
    for _ in 0..10 {
        let (mut host, _) = add(&mut subscriber, &Inner::by(Way::Pair));
        host.write_all(b"x").unwrap();
        hosts.push(host);
    }
    rest(&mut subscriber);
    assert!(subscriber.streams().is_empty());
    assert_eq!(subscriber.counters().panics, 20); // readable, and closed
}

#[test]
fn an_acceptor_that_panics_continues_with_the_next_connection() {
    let backend = VsockInnerBackend::new().unwrap();
    let connector = backend.get_connector();
    let mut accepted = 0;
    let handler = |_stream: Box<dyn VsockStream>| {
        accepted += 1;
        assert!(accepted > 1, "this handler panics on purpose");
        More::Accept
    };
    let mut subscriber =
        BackendSubscriber::new(Box::new(backend), handler, AcceptLimits::default()).unwrap();
    let _hosts = [connector.connect().unwrap(), connector.connect().unwrap()];
    assert_eq!(subscriber.dispatch().unwrap(), 2);
    assert_eq!(subscriber.counters().panics, 1);
}

/// A panic payload that panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        assert!(thread::panicking(), "this payload panics on purpose");
    }
}

#[test]
fn t132_the_payload_of_a_panic_that_panics_is_contained_too() {
    let mut subscriber = recorder(StreamLimits::default(), |_: &mut Streams<()>, _, told| {
        if told == Told::Readable {
            panic_any(Bomb);
        }
    });
    let (mut host, _) = add(&mut subscriber, &Inner::by(Way::Pair));
    host.write_all(b"x").unwrap();
    rest(&mut subscriber);
    assert_eq!(subscriber.counters().panics, 1);
    assert!(subscriber.streams().is_empty());
    assert_eq!(subscriber.handler().count(Told::Closed), 1);
}

/// Two connected streams, the first of which misbehaves, on a loop with two more.
struct Proxied {
    subscriber: StreamSubscriber<Proxy>,
    hosts: [Box<dyn VsockStream>; 4],
}

impl Proxied {
    fn new(trigger: Trigger, temper: &Temper) -> Self {
        let mut source = Inner::by(Way::Pair);
        source.config = source.config.to_application(Capacity::Bytes(64));
        let pairs: [_; 4] = std::array::from_fn(|_| pair(&source));
        let (hosts, [first, second, third, fourth]) = split(pairs);
        let limits = StreamLimits::default().trigger(trigger);
        let mut subscriber = StreamSubscriber::new(Proxy::new(), limits).unwrap();
        let streams = subscriber.streams();
        Proxy::join(streams, temper.stream(first), second).unwrap();
        Proxy::join(streams, third, fourth).unwrap();
        Self { subscriber, hosts }
    }

    /// Sends more each way than the device's ends hold, and ends the first direction.
    fn live(&mut self) {
        for at in 0..4 {
            self.hosts[at].write_all(&[7; 1000]).unwrap();
        }
        rest(&mut self.subscriber);
        for at in [0, 2] {
            self.hosts[at].shutdown(Shutdown::Write).unwrap();
        }
        rest(&mut self.subscriber);
    }

    /// Reads everything that arrives at a host.
    fn read(&mut self, at: usize) -> (usize, bool) {
        let mut got = 0;
        loop {
            match read_all(&mut *self.hosts[at]) {
                (bytes, false) if !bytes.is_empty() => got += bytes.len(),
                (bytes, ended) => return (got + bytes.len(), ended),
            }
            rest(&mut self.subscriber);
        }
    }
}

type Streams4 = [Box<dyn VsockStream>; 4];

fn split(pairs: [(Box<dyn VsockStream>, Box<dyn VsockStream>); 4]) -> (Streams4, Streams4) {
    let [(a, b), (c, d), (e, f), (g, h)] = pairs;
    ([a, c, e, g], [b, d, f, h])
}

#[test]
fn t132_a_stream_that_panics_or_lies_fails_alone_whatever_the_call() {
    type Turn = fn(&Temper, Call);
    let mut shown = Vec::new();
    for trigger in [Trigger::Level, Trigger::Edge] {
        for (call, turn) in Call::OF_STREAMS
            .into_iter()
            .map(|call| (call, Temper::panic_in as Turn))
            .chain([Call::Read, Call::Write].map(|call| (call, Temper::lie_in as Turn)))
        {
            let temper = Temper::default();
            let mut proxied = Proxied::new(trigger, &temper);
            turn(&temper, call);
            proxied.live();
            // The two connected streams end, once everything in flight has arrived or cannot
            // arrive.
            let (to_second, ended) = proxied.read(1);
            assert!(
                to_second <= 1000 && (ended || temper.shown() == 0),
                "{call:?}"
            );
            proxied.hosts[1].shutdown(Shutdown::Write).unwrap();
            rest(&mut proxied.subscriber);
            // The first host may have been reset.
            drop(catch_unwind(AssertUnwindSafe(|| proxied.read(0))));
            rest(&mut proxied.subscriber);
            temper.calm();
            assert_eq!(
                proxied.subscriber.counters().panics,
                0,
                "no handler panicked"
            );
            if temper.shown() > 0 {
                shown.push(call);
                assert_eq!(
                    proxied.subscriber.streams().len(),
                    2,
                    "{trigger:?} {call:?}"
                );
            }
            // The other streams are not affected.
            assert_eq!(proxied.read(3), (1000, true));
            proxied.hosts[3].shutdown(Shutdown::Write).unwrap();
            rest(&mut proxied.subscriber);
            assert_eq!(proxied.read(2), (1000, true));
        }
    }
    for call in [
        Call::Read,
        Call::Write,
        Call::Shutdown,
        Call::WriteReadyFd,
        Call::Drop,
    ] {
        assert!(shown.contains(&call), "{call:?}: {shown:?}");
    }
}

#[test]
fn t132_a_stream_that_panics_when_it_is_added_is_given_back() {
    for call in [Call::SetNonblocking, Call::AsRawFd, Call::BackendType] {
        let temper = Temper::default();
        let mut echo = StreamSubscriber::new(Echo::new(), StreamLimits::default()).unwrap();
        let (host, device) = pair(&Inner::by(Way::Pair));
        temper.panic_in(call);
        let error = echo.streams().add(temper.stream(device), ()).unwrap_err();
        temper.calm();
        assert!(echo.streams().is_empty());
        assert!(!host.peer_gone());
        echo.streams().add(error.stream, ()).unwrap();
        assert_eq!(echo.counters().refused, 1);
    }
}

#[test]
fn t132_a_service_of_lines_that_panics_loses_one_stream() {
    let answer = |line: &[u8], answer: &mut Vec<u8>| {
        answer.extend_from_slice(b"half");
        assert_ne!(line, b"panic", "this service panics on purpose");
        answer.extend_from_slice(b" and half\n");
        Reply::Send
    };
    let lines = Lines::new(100, answer).unwrap();
    let mut service = StreamSubscriber::new(lines, StreamLimits::default()).unwrap();
    let (mut one, _) = add(&mut service, &Inner::by(Way::Pair));
    let (mut two, _) = add(&mut service, &Inner::by(Way::Pair));
    one.write_all(b"panic\n").unwrap();
    rest(&mut service);
    assert!(one.peer_gone());
    two.write_all(b"x\n").unwrap();
    rest(&mut service);
    assert_eq!(read_all(&mut *two), (b"half and half\n".to_vec(), false));
    assert_eq!(service.counters().panics, 1);
}

/// A handler that counts connections, and panics when it is told of a failure.
#[derive(Default)]
struct Easily(usize);

impl AcceptHandler for Easily {
    fn accepted(&mut self, _stream: Box<dyn VsockStream>) -> More {
        self.0 += 1;
        More::Accept
    }

    fn failed(&mut self, error: io::Error) {
        panic!("this handler panics on purpose: {error}");
    }
}

#[test]
fn t132_a_backend_that_panics_is_tried_again_after_a_pause() {
    let temper = Temper::default();
    let backend = VsockInnerBackend::new().unwrap();
    let connector = backend.get_connector();
    let backend = temper.backend(Box::new(backend));
    let limits = AcceptLimits::default();
    let mut subscriber = BackendSubscriber::new(backend, Easily::default(), limits).unwrap();
    let _host = connector.connect().unwrap();
    temper.panic_in(Call::Accept);
    assert_eq!(subscriber.dispatch().unwrap(), 0);
    assert_eq!(subscriber.counters().panics, limits.batch as u64);
    temper.calm();
    let deadline = soon();
    while subscriber.handler().0 == 0 {
        waiting(deadline, subscriber.counters());
        subscriber.dispatch().unwrap();
    }
}

#[test]
fn t132_a_command_of_another_thread_panics_there_and_the_loop_continues() {
    let (handle, looping) = looping(|subscriber| subscriber.streams().is_finished());
    let remote = handle(|found| Some(found));
    let asked = catch_unwind(AssertUnwindSafe(|| {
        remote.call(|streams| {
            assert!(!streams.is_empty(), "this call panics on purpose");
        })
    }));
    let panic = asked.unwrap_err();
    assert_eq!(panic.downcast_ref(), Some(&"this call panics on purpose"));
    assert_eq!(remote.call(|streams| streams.len()).unwrap(), 0);
    remote.call(|streams| streams.stop()).unwrap();
    looping.join().unwrap();
}
