// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Drain and stop, with data in flight.

use std::io::{ErrorKind, Read, Write};
use std::time::Duration;

use vsock_compliance::PairSource;
use vsock_driver::{Call, Temper};
use vsock_epoll::{Refusal, StreamId, StreamLimits, StreamSubscriber};
use vsock_tests::assert_fails;
use vsock_tests::inner::{Inner, Way};
use vsock_tests::unix::Sockets;

use crate::{Act, Recorder, Told, add, pair, read_all, read_to_end, reader, rest, served, until};

#[test]
fn a_drain_delivers_everything_that_was_accepted() {
    let sources: [&dyn PairSource; 2] = [&Inner::holding(1000), &Sockets];
    for source in sources {
        let (mut subscriber, mut host, id) = served(source);
        let bytes: Vec<u8> = (0..2_000_000_u32).map(|at| at.to_le_bytes()[0]).collect();
        let accepted = subscriber.streams().write(id, &bytes);
        assert!(subscriber.streams().backlog(id) > 0);
        subscriber.streams().drain(None);
        assert!(!subscriber.streams().is_finished());
        assert!(read_to_end(&mut subscriber, &mut *host) == bytes[..accepted]);
        rest(&mut subscriber);
        assert!(subscriber.streams().is_finished());
        assert_eq!(subscriber.counters().bytes_lost, 0);
    }
}

#[test]
fn a_drain_without_a_reader_ends_at_its_timeout_and_counts_the_loss() {
    let (mut subscriber, _host, id) = served(&Inner::holding(10));
    assert_eq!(subscriber.streams().write(id, &[1; 110]), 110);
    subscriber.streams().drain(Some(Duration::from_millis(20)));
    until(&mut subscriber, |subscriber| {
        subscriber.streams().is_finished()
    });
    assert_eq!(subscriber.counters().bytes_lost, 100);
    assert_eq!(subscriber.handler().count(Told::Closed), 1);
    rest(&mut subscriber);
}

/// Covers each way to lose bytes that were accepted for writing.
#[test]
fn lost_bytes_are_followed_by_a_reset_instead_of_an_end() {
    type Lose = fn(StreamSubscriber<Recorder<Act>>, StreamId);
    let ways: [Lose; 3] = [
        |mut subscriber, id| assert!(subscriber.streams().close(id)),
        |mut subscriber, _| subscriber.streams().stop(),
        |subscriber, _| drop(subscriber),
    ];
    for lose in ways {
        let (mut subscriber, mut host, id) = served(&Inner::holding(10));
        assert_eq!(subscriber.streams().write(id, &[1; 110]), 110);
        lose(subscriber, id);
        assert_eq!(host.read(&mut [0; 110]).unwrap(), 10);
        assert_fails(host.read(&mut [0]), ErrorKind::ConnectionReset);
    }
}

#[test]
fn a_stream_is_aborted_with_a_reset_or_closed_with_an_end() {
    let mut subscriber = reader(StreamLimits::default());
    for abort in [true, false] {
        let (mut host, id) = add(&mut subscriber, &Inner::by(Way::Pair));
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
fn a_stop_closes_everything_immediately_and_accepts_no_more_connections() {
    let (mut subscriber, mut host, _) = served(&Inner::by(Way::Pair));
    subscriber.streams().stop();
    assert_eq!(host.read(&mut [0]).unwrap(), 0);
    rest(&mut subscriber);
    assert!(subscriber.streams().is_finished());
    let (_host, device) = pair(&Inner::by(Way::Pair));
    let refused = subscriber.streams().add(device, ()).unwrap_err();
    assert!(matches!(refused.refusal, Refusal::Ending));
}

#[test]
fn t132_a_stream_without_half_close_is_closed_by_its_end() {
    let temper = Temper::default();
    let mut subscriber = reader(StreamLimits::default());
    let (mut host, device) = pair(&Inner::by(Way::Pair));
    let id = subscriber.streams().add(temper.stream(device), ()).unwrap();
    assert_eq!(subscriber.streams().write(id, b"last words"), 10);
    temper.panic_in(Call::Shutdown); // equivalent to an unsupported shutdown
    subscriber.streams().finish(id);
    rest(&mut subscriber);
    assert_eq!(temper.shown(), 1);
    assert_eq!(subscriber.handler().count(Told::Closed), 1);
    assert_eq!(read_all(&mut *host), (b"last words".to_vec(), true));
}

#[test]
fn finish_and_close_writes_the_backlog_whatever_the_peer_sends() {
    let (mut subscriber, mut host, id) = served(&Inner::holding(10));
    assert_eq!(subscriber.streams().write(id, &[3; 50]), 50);
    subscriber.streams().finish_and_close(id);
    host.write_all(b"unread").unwrap(); // the loop would spin if it still watched for this
    assert_eq!(read_to_end(&mut subscriber, &mut *host), [3; 50]);
    assert!(subscriber.streams().is_empty());
}

#[test]
fn a_failed_write_is_reported_and_its_backlog_counted() {
    let (mut subscriber, host, id) = served(&Inner::holding(10));
    assert_eq!(subscriber.streams().write(id, &[3; 50]), 50);
    subscriber.streams().pause(id); // so that the write event arrives, not the reset
    drop(host);
    rest(&mut subscriber);
    assert_eq!(subscriber.handler().count(Told::Failed("write")), 1);
    assert_eq!(subscriber.counters().bytes_lost, 40);
    assert_eq!(subscriber.handler().count(Told::Closed), 1);
}
