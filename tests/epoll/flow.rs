// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Interest, backpressure and fairness.

use std::io::Write;
use std::net::Shutdown;

use vsock_compliance::{BoxedStream, PairSource};
use vsock_epoll::services::Echo;
use vsock_epoll::{StreamLimits, StreamSubscriber, Trigger};
use vsock_tests::inner::{Inner, Way};
use vsock_tests::unix::Sockets;

use crate::{Told, add, read_all, reader, recorder, rest, served, soon, until, waiting};

const TRIGGERS: [Trigger; 2] = [Trigger::Level, Trigger::Edge];

fn sources() -> [Box<dyn PairSource>; 3] {
    [
        Box::new(Inner::by(Way::Pair)),
        Box::new(Inner::holding(100)),
        Box::new(Sockets),
    ]
}

#[test]
fn a_large_echo_comes_back_whole_over_every_transport_and_trigger() {
    let sent: Vec<u8> = (0..1_000_000_u32)
        .map(|at| at.to_le_bytes()[at as usize % 3])
        .collect();
    for (source, trigger) in sources().iter().flat_map(|s| TRIGGERS.map(|t| (s, t))) {
        let limits = StreamLimits::default()
            .trigger(trigger)
            .backlog(5000)
            .turn(3000);
        let mut echo = StreamSubscriber::new(Echo::new(), limits).unwrap();
        let (mut host, _) = add(&mut echo, &**source);
        let (mut at, mut back) = (0, Vec::new());
        let deadline = soon();
        loop {
            waiting(deadline, (at, back.len()));
            while at < sent.len() {
                match host.write(&sent[at..]) {
                    Ok(written) => at += written,
                    Err(_) => break, // full
                }
            }
            if at == sent.len() {
                host.shutdown(Shutdown::Write).unwrap();
            }
            rest(&mut echo);
            let (got, ended) = read_all(&mut *host);
            back.extend(got);
            if ended {
                break;
            }
        }
        assert!(back == sent, "{} bytes came back", back.len());
        assert!(echo.streams().is_empty());
        let counters = echo.counters();
        assert_eq!(
            (counters.bytes_in, counters.bytes_out),
            (1_000_000, 1_000_000)
        );
        assert!(counters.spurious <= counters.events / 2, "{counters:?}");
    }
}

#[test]
fn t65_a_descriptor_is_watched_for_space_only_while_bytes_wait() {
    for source in sources() {
        let (mut subscriber, mut host, id) = served(&*source);
        let mut accepted = 0;
        loop {
            let written = subscriber.streams().write(id, &[7; 4096]);
            accepted += written;
            if written < 4096 {
                break;
            }
            assert!(accepted < 1 << 24, "the backlog has no limit");
        }
        assert_eq!(subscriber.streams().backlog(id), 64 * 1024);
        rest(&mut subscriber); // this would spin if the loop watched for space that exists
        let mut got = 0;
        let deadline = soon();
        while got < accepted {
            waiting(deadline, got);
            got += read_all(&mut *host).0.len();
            rest(&mut subscriber);
        }
        assert_eq!((got, subscriber.streams().backlog(id)), (accepted, 0));
        assert_eq!(subscriber.handler().count(Told::Writable), 1);
    }
}

#[test]
fn t71_a_paused_stream_learns_once_that_its_peer_has_gone_and_loses_no_byte() {
    for (source, trigger) in sources().iter().flat_map(|s| TRIGGERS.map(|t| (s, t))) {
        let mut subscriber = reader(StreamLimits::default().trigger(trigger));
        let (mut host, id) = add(&mut subscriber, &**source);
        subscriber.streams().pause(id);
        host.write_all(b"last words").unwrap();
        rest(&mut subscriber); // this would spin if the loop still watched for unread bytes
        assert_eq!(subscriber.handler().told, []);
        host.shutdown(Shutdown::Both).unwrap();
        drop(host);
        rest(&mut subscriber);
        assert_eq!(subscriber.handler().told, [(Told::Gone, id)]);
        assert_eq!(subscriber.handler().got, b"");
        subscriber.streams().resume(id);
        subscriber.streams().pause(id);
        rest(&mut subscriber);
        assert_eq!(subscriber.handler().count(Told::Gone), 1);
        subscriber.streams().resume(id);
        rest(&mut subscriber);
        assert_eq!(subscriber.handler().got, b"last words");
        assert_eq!(subscriber.handler().count(Told::Gone), 1);
        assert_eq!(subscriber.handler().count(Told::Closed), 1);
    }
}

#[test]
fn a_stream_paused_after_its_peer_has_closed_learns_of_the_close_too() {
    for (source, trigger) in sources().iter().flat_map(|s| TRIGGERS.map(|t| (s, t))) {
        let mut subscriber = reader(StreamLimits::default().trigger(trigger));
        let (mut host, id) = add(&mut subscriber, &**source);
        host.write_all(b"last words").unwrap();
        drop(host);
        subscriber.streams().pause(id);
        rest(&mut subscriber);
        assert_eq!(subscriber.handler().told, [(Told::Gone, id)]);
    }
}

#[test]
fn a_paused_stream_is_not_read_and_resumes_where_it_was() {
    for (source, trigger) in sources().iter().flat_map(|s| TRIGGERS.map(|t| (s, t))) {
        let mut subscriber = reader(StreamLimits::default().trigger(trigger));
        let (mut host, id) = add(&mut subscriber, &**source);
        for round in 1..=5 {
            subscriber.streams().pause(id);
            for _ in 0..9 {
                host.write_all(&[round]).unwrap();
                rest(&mut subscriber);
            }
            let before = usize::from(round - 1) * 9;
            assert_eq!(subscriber.handler().got.len(), before, "it was read");
            subscriber.streams().resume(id);
            rest(&mut subscriber);
            assert_eq!(subscriber.handler().got.len(), before + 9);
        }
        let counters = subscriber.counters();
        assert_eq!(counters.spurious, 0);
        // One event to read, and at most one for the first byte that arrived during the pause.
        assert!(counters.events <= 2 * 5, "{counters:?}");
    }
}

#[test]
fn t85_bytes_written_before_a_drop_or_an_abort_are_read_before_its_end() {
    let ends: [(fn(BoxedStream), Told); 2] = [
        (drop, Told::Ended),
        (|host| host.abort(), Told::Failed("read")),
    ];
    for ((end, told), trigger) in ends.into_iter().flat_map(|e| TRIGGERS.map(|t| (e, t))) {
        let mut subscriber = reader(StreamLimits::default().trigger(trigger).turn(1));
        let (mut host, _) = add(&mut subscriber, &Inner::by(Way::Pair));
        host.write_all(b"hello").unwrap();
        end(host);
        rest(&mut subscriber);
        assert_eq!(subscriber.handler().got, b"hello");
        assert_eq!(subscriber.handler().count(told), 1);
        assert!(subscriber.streams().is_empty());
    }
}

#[test]
fn a_half_closed_stream_that_waits_learns_that_its_peer_has_gone() {
    for (source, trigger) in sources().iter().flat_map(|s| TRIGGERS.map(|t| (s, t))) {
        let limits = StreamLimits::default().trigger(trigger);
        let mut subscriber = recorder(limits, |_, _, _| {}); // its answer is not ready yet
        let (mut host, _) = add(&mut subscriber, &**source);
        host.shutdown(Shutdown::Write).unwrap();
        rest(&mut subscriber);
        assert_eq!(subscriber.handler().count(Told::Ended), 1);
        assert_eq!(subscriber.streams().len(), 1);
        drop(host);
        rest(&mut subscriber);
        assert_eq!(subscriber.handler().count(Told::Failed("gone")), 1);
        assert!(subscriber.streams().is_empty());
    }
}

#[test]
fn t72_a_stream_that_is_always_readable_starves_no_other() {
    for trigger in TRIGGERS {
        // One event for each wake-up is the hardest case.
        let limits = StreamLimits::default().trigger(trigger).events(1).turn(64);
        let mut subscriber = reader(limits);
        let (mut busy, busy_id) = add(&mut subscriber, &Inner::by(Way::Pair));
        busy.write_all(&[1; 10_000]).unwrap();
        subscriber.dispatch().unwrap();
        let (mut quiet, quiet_id) = add(&mut subscriber, &Inner::by(Way::Pair));
        quiet.write_all(&[2]).unwrap();
        let from = subscriber.handler().told.len();
        for _ in 0..4 {
            subscriber.dispatch().unwrap();
        }
        let told = &subscriber.handler().told[from..];
        assert!(told.contains(&(Told::Readable, quiet_id)), "{told:?}");
        assert!(told.contains(&(Told::Readable, busy_id)), "{told:?}");
    }
}

#[test]
fn t76_a_wakeup_reads_no_more_of_a_stream_than_its_turn() {
    let mut subscriber = reader(StreamLimits::default().turn(1000));
    let (mut host, _) = add(&mut subscriber, &Inner::by(Way::Pair));
    host.write_all(&[1; 2500]).unwrap();
    for expected in [1000, 2000, 2500] {
        subscriber.dispatch().unwrap();
        assert_eq!(subscriber.handler().got.len(), expected);
    }
}

#[test]
fn t78_a_slow_reader_fills_its_own_backlog_and_delays_no_other_stream() {
    let limits = StreamLimits::default().backlog(1000);
    let mut echo = StreamSubscriber::new(Echo::new(), limits).unwrap();
    let source = Inner::holding(4096);
    let (mut slow, slow_id) = add(&mut echo, &source);
    let (mut fast, _) = add(&mut echo, &source);
    let mut sent = 0;
    for _ in 0..1000 {
        while let Ok(written) = slow.write(&[1; 100]) {
            sent += written;
        }
        fast.write_all(&[2; 100]).unwrap();
        rest(&mut echo);
        assert_eq!(read_all(&mut *fast).0.len(), 100);
        assert!(echo.streams().backlog(slow_id) <= 1000);
    }
    assert!(sent <= 2 * 4096 + 1000, "{sent} bytes are buffered");
    let mut got = 0;
    until(&mut echo, |_| {
        got += read_all(&mut *slow).0.len();
        got == sent
    });
}
