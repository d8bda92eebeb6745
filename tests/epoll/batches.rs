// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Batches in which one event affects what later events refer to.

use std::error::Error;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use vsock_backend_api::VsockStream;
use vsock_compliance::PairSource;
use vsock_epoll::{Refusal, StreamId, StreamLimits, Streams};
use vsock_sockets::UnixVsockStream;
use vsock_tests::inner::{Inner, Way};
use vsock_tests::unix::Sockets;

use crate::{Told, add, is_readable, pair, reader, recorder, rest};

#[test]
fn t80_an_event_of_a_closed_stream_never_reaches_its_successor() {
    let sources: [&dyn PairSource; 2] = [&Sockets, &Inner::by(Way::Pair)];
    for source in sources {
        let (spare_host, spare) = pair(source);
        let mut spare = Some(spare);
        let mut ids: Vec<StreamId> = Vec::new();
        let mut swap: Option<(StreamId, StreamId)> = None;
        let mut both: Vec<StreamId> = Vec::new();
        let mut act = |streams: &mut Streams<()>, id: StreamId, told: Told| {
            both = streams.ids().collect();
            if told == Told::Readable && swap.is_none() {
                let victim = both.iter().copied().find(|other| *other != id).unwrap();
                streams.close(victim);
                let successor = streams.add(spare.take().unwrap(), ()).unwrap();
                swap = Some((victim, successor));
            }
        };
        let mut subscriber = recorder(StreamLimits::default(), &mut act);
        let mut hosts = Vec::new();
        for _ in 0..2 {
            let (mut host, device) = pair(source);
            ids.push(subscriber.streams().add(device, ()).unwrap());
            host.write_all(b"x").unwrap();
            hosts.push(host);
        }
        assert_eq!(subscriber.dispatch().unwrap(), 2, "both were in the batch");
        assert_eq!(subscriber.counters().stale, 1);
        assert_eq!(subscriber.handler().count(Told::Readable), 1);
        rest(&mut subscriber);
        drop(subscriber);
        let (victim, successor) = swap.unwrap();
        assert_ne!(victim, successor);
        drop((hosts, spare_host));
    }
}

#[test]
fn t80_a_descriptor_that_is_used_again_has_another_id() {
    crate::many::alone(|| {
        let mut subscriber = reader(StreamLimits::default());
        let (_host, device) = Sockets.pair().unwrap();
        let fd = device.as_raw_fd();
        let old = subscriber.streams().add(device, ()).unwrap();
        assert!(subscriber.streams().close(old));
        let (host, device) = Sockets.pair().unwrap(); // the kernel assigns the lowest free number
        let ends = [host, device];
        let at = ends.iter().position(|end| end.as_raw_fd() == fd).unwrap();
        let [host, device] = ends;
        let (reused, mut other) = if at == 0 {
            (host, device)
        } else {
            (device, host)
        };
        let new = subscriber.streams().add(reused, ()).unwrap();
        other.write_all(b"for the new one").unwrap();
        rest(&mut subscriber);
        assert!(subscriber.handler().told.contains(&(Told::Readable, new)));
        assert!(!subscriber.handler().told.contains(&(Told::Readable, old)));
        assert_eq!(subscriber.streams().write(old, b"x"), 0);
        assert!(!subscriber.streams().close(old));
        assert_eq!(subscriber.streams().len(), 1);
    });
}

#[test]
fn a_closed_stream_with_a_duplicated_descriptor_does_not_wake_the_loop() {
    let (mut host, device) = UnixStream::pair().unwrap();
    let copy = device.try_clone().unwrap();
    let mut subscriber = reader(StreamLimits::default());
    let device = Box::new(UnixVsockStream::new(device));
    let id = subscriber.streams().add(device, ()).unwrap();
    subscriber.streams().close(id);
    host.write_all(b"for the copy").unwrap();
    // The kernel watches a descriptor until its last copy is closed, so the loop could spin here.
    rest(&mut subscriber);
    assert_eq!(subscriber.counters().stale, 0);
    drop(copy);
}

#[test]
fn peers_that_drop_during_a_batch_end_only_their_own_streams() {
    let mut hosts = Vec::new();
    let mut subscriber = reader(StreamLimits::default());
    for _ in 0..200 {
        let (mut host, _) = add(&mut subscriber, &Inner::by(Way::Pair));
        host.write_all(b"x").unwrap();
        hosts.push(host);
    }
    hosts.truncate(100);
    rest(&mut subscriber);
    assert_eq!(subscriber.streams().len(), 100);
    assert_eq!(subscriber.handler().got.len(), 200);
    assert_eq!(subscriber.handler().count(Told::Closed), 100);
}

#[test]
fn a_handler_may_close_every_stream_from_within_a_call() {
    let mut subscriber = recorder(
        StreamLimits::default(),
        |streams: &mut Streams<()>, _, told| {
            if told == Told::Readable {
                let all: Vec<StreamId> = streams.ids().collect();
                all.into_iter().for_each(|id| assert!(streams.close(id)));
            }
        },
    );
    let mut hosts = Vec::new();
    for _ in 0..50 {
        let (mut host, _) = add(&mut subscriber, &Inner::by(Way::Pair));
        host.write_all(b"x").unwrap();
        hosts.push(host);
    }
    rest(&mut subscriber);
    assert_eq!(subscriber.handler().count(Told::Closed), 50);
    assert_eq!(subscriber.counters().stale, 49);
}

#[test]
fn the_consequences_of_a_wake_ups_events_are_reported_in_it() {
    const EVENTS: usize = 8;
    let act = |streams: &mut Streams<()>, id, told| match told {
        Told::Readable => streams.await_space(id),
        Told::Ended => streams.finish(id),
        _ => {}
    };
    let mut subscriber = recorder(StreamLimits::default().events(EVENTS), act);
    let mut hosts = Vec::new();
    for _ in 0..EVENTS {
        let (mut host, _) = add(&mut subscriber, &Inner::by(Way::Pair));
        host.shutdown(Shutdown::Write).unwrap();
        hosts.push(host);
    }
    assert_eq!(subscriber.dispatch().unwrap(), EVENTS);
    let handler = subscriber.handler();
    let told =
        [Told::Readable, Told::Writable, Told::Ended, Told::Closed].map(|told| handler.count(told));
    assert_eq!(told, [EVENTS; 4]);
}

#[test]
fn a_handler_that_causes_endless_events_yields_the_thread() {
    const EVENTS: usize = 8;
    let act = |streams: &mut Streams<()>, id, told| {
        if told == Told::Writable {
            streams.await_space(id);
        }
    };
    let mut subscriber = recorder(StreamLimits::default().events(EVENTS), act);
    let (_host, id) = add(&mut subscriber, &Inner::by(Way::Pair));
    subscriber.streams().await_space(id);
    for turns in 1..=3 {
        let more = is_readable(subscriber.as_raw_fd()).unwrap();
        assert!(more, "pending reports wake the loop again");
        subscriber.dispatch().unwrap();
        let told = subscriber.handler().count(Told::Writable);
        assert!(
            (turns..=turns * 4 * EVENTS).contains(&told),
            "{told} times in {turns} wake-ups of {EVENTS} events at most"
        );
    }
}

#[test]
fn a_refusal_is_a_thread_safe_error_and_closes_the_stream() {
    fn serve(to: &mut Streams<()>, stream: Box<dyn VsockStream>) -> Result<StreamId, Refusal> {
        Ok(to.add(stream, ())?)
    }
    fn is<E: Error + Send + Sync + 'static>(_: &E) {}
    let mut subscriber = reader(StreamLimits::default());
    subscriber.streams().stop();
    let (mut host, device) = pair(&Inner::by(Way::Pair));
    let refused = serve(subscriber.streams(), device).unwrap_err();
    is(&refused);
    assert!(matches!(refused, Refusal::Ending));
    assert_eq!(host.read(&mut [0]).unwrap(), 0);
}

#[test]
fn the_limit_of_streams_gives_the_stream_back() {
    let mut subscriber = reader(StreamLimits::default().streams(1));
    let (_one, first) = add(&mut subscriber, &Inner::by(Way::Pair));
    let (mut host, device) = pair(&Inner::by(Way::Pair));
    let mut refused = subscriber.streams().add(device, ()).unwrap_err();
    assert!(matches!(refused.refusal, Refusal::Full { limit: 1 }));
    refused.stream.write_all(b"still good").unwrap();
    assert_eq!(crate::read_all(&mut *host).0, b"still good");
    subscriber.streams().close(first);
    subscriber.streams().add(refused.stream, ()).unwrap();
    assert_eq!(subscriber.counters().refused, 1);
}
