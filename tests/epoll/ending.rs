// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Drain and stop, with data in flight.

use std::io::{ErrorKind, Read, Write};
use std::time::Duration;

use vsock_compliance::PairSource;
use vsock_driver::{Call, Temper};
use vsock_epoll::{Refusal, StreamId, StreamLimits, StreamSubscriber};
use vsock_tests::inner::{Inner, Way};
use vsock_tests::unix::Sockets;

use crate::{Act, Recorder, Told, pair, read_all, reader, rest, soon, until, waiting};

#[test]
fn a_drain_delivers_everything_that_was_accepted() {
    let sources: [&dyn PairSource; 2] = [&Inner::holding(1000), &Sockets];
    for source in sources {
        let mut subscriber = reader(StreamLimits::default());
        let (mut host, device) = pair(source);
        let id = subscriber.streams().add(device, ()).unwrap();
        let bytes: Vec<u8> = (0..2_000_000_u32).map(|at| at.to_le_bytes()[0]).collect();
        let accepted = subscriber.streams().write(id, &bytes);
        assert!(subscriber.streams().backlog(id) > 0);
        subscriber.streams().drain(None);
        assert!(!subscriber.streams().is_finished());
        let (mut got, mut ended) = (Vec::new(), false);
        let deadline = soon();
        while !ended {
            waiting(deadline, got.len());
            rest(&mut subscriber);
            let (more, end) = read_all(&mut *host);
            got.extend(more);
            ended = end;
        }
        assert!(got == bytes[..accepted]);
        rest(&mut subscriber);
        assert!(subscriber.streams().is_finished());
        assert_eq!(subscriber.counters().bytes_lost, 0);
    }
}

#[test]
fn a_drain_that_is_not_taken_ends_when_its_patience_does_and_counts_the_loss() {
    let mut subscriber = reader(StreamLimits::default());
    let (_host, device) = pair(&Inner::holding(10));
    let id = subscriber.streams().add(device, ()).unwrap();
    assert_eq!(subscriber.streams().write(id, &[1; 110]), 110);
    subscriber.streams().drain(Some(Duration::from_millis(20)));
    until(&mut subscriber, |subscriber| {
        subscriber.streams().is_finished()
    });
    assert_eq!(subscriber.counters().bytes_lost, 100);
    assert_eq!(subscriber.handler().count(Told::Closed), 1);
    rest(&mut subscriber);
}

/// Each way to lose bytes that were accepted for writing.
#[test]
fn bytes_that_are_lost_are_followed_by_a_reset_and_no_end() {
    type Lose = fn(StreamSubscriber<Recorder<Act>>, StreamId);
    let ways: [Lose; 3] = [
        |mut subscriber, id| assert!(subscriber.streams().close(id)),
        |mut subscriber, _| subscriber.streams().stop(),
        |subscriber, _| drop(subscriber),
    ];
    for lose in ways {
        let mut subscriber = reader(StreamLimits::default());
        let (mut host, device) = pair(&Inner::holding(10));
        let id = subscriber.streams().add(device, ()).unwrap();
        assert_eq!(subscriber.streams().write(id, &[1; 110]), 110);
        lose(subscriber, id);
        assert_eq!(host.read(&mut [0; 110]).unwrap(), 10);
        let error = host.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
}

#[test]
fn a_stream_is_aborted_with_a_reset_or_closed_with_an_end() {
    let mut subscriber = reader(StreamLimits::default());
    for abort in [true, false] {
        let (mut host, device) = pair(&Inner::by(Way::Pair));
        let id = subscriber.streams().add(device, ()).unwrap();
        let there = if abort {
            subscriber.streams().abort(id)
        } else {
            subscriber.streams().close(id)
        };
        assert!(there && !subscriber.streams().abort(id));
        let end = host.read(&mut [0]).map_err(|error| error.kind());
        let expected = if abort {
            Err(ErrorKind::ConnectionReset)
        } else {
            Ok(0)
        };
        assert_eq!(end, expected);
    }
    rest(&mut subscriber);
    assert_eq!(subscriber.handler().count(Told::Closed), 2);
}

#[test]
fn a_stop_closes_everything_at_once_and_takes_nothing_more() {
    let mut subscriber = reader(StreamLimits::default());
    let (mut host, device) = pair(&Inner::by(Way::Pair));
    subscriber.streams().add(device, ()).unwrap();
    subscriber.streams().stop();
    assert_eq!(host.read(&mut [0]).unwrap(), 0);
    rest(&mut subscriber);
    assert!(subscriber.streams().is_finished());
    let (_host, device) = pair(&Inner::by(Way::Pair));
    let refused = subscriber.streams().add(device, ()).unwrap_err();
    assert!(matches!(refused.refusal, Refusal::Ending));
}

#[test]
fn t132_a_stream_that_knows_no_half_close_is_closed_by_its_end() {
    let temper = Temper::default();
    let mut subscriber = reader(StreamLimits::default());
    let (mut host, device) = pair(&Inner::by(Way::Pair));
    let id = subscriber.streams().add(temper.stream(device), ()).unwrap();
    assert_eq!(subscriber.streams().write(id, b"last words"), 10);
    temper.panic_in(Call::Shutdown); // which tells as little as one that is not supported
    subscriber.streams().finish(id);
    rest(&mut subscriber);
    assert_eq!(temper.shown(), 1);
    assert_eq!(subscriber.handler().count(Told::Closed), 1);
    assert_eq!(read_all(&mut *host), (b"last words".to_vec(), true));
}

#[test]
fn finish_and_close_writes_what_waits_whatever_the_peer_sends() {
    let mut subscriber = reader(StreamLimits::default());
    let (mut host, device) = pair(&Inner::holding(10));
    let id = subscriber.streams().add(device, ()).unwrap();
    assert_eq!(subscriber.streams().write(id, &[3; 50]), 50);
    subscriber.streams().finish_and_close(id);
    host.write_all(b"unread").unwrap(); // watched as ever, it would make the loop spin
    rest(&mut subscriber);
    let mut got = 0;
    let deadline = soon();
    loop {
        waiting(deadline, got);
        rest(&mut subscriber);
        let (more, end) = read_all(&mut *host);
        got += more.len();
        if end {
            break;
        }
    }
    assert_eq!((got, subscriber.streams().len()), (50, 0));
}

#[test]
fn a_write_that_fails_is_told_and_its_backlog_counted() {
    let mut subscriber = reader(StreamLimits::default());
    let (host, device) = pair(&Inner::holding(10));
    let id = subscriber.streams().add(device, ()).unwrap();
    assert_eq!(subscriber.streams().write(id, &[3; 50]), 50);
    subscriber.streams().pause(id); // so the space tells, not the reset
    drop(host);
    rest(&mut subscriber);
    assert_eq!(subscriber.handler().count(Told::Failed("write")), 1);
    assert_eq!(subscriber.counters().bytes_lost, 40);
    assert_eq!(subscriber.handler().count(Told::Closed), 1);
}
