// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Timers fire on their own, without other traffic.

use std::time::Duration;

use vsock_compliance::poll::Stopwatch;
use vsock_epoll::{StreamId, StreamLimits, Streams};
use vsock_tests::inner::{Inner, Way};

use crate::{Told, add, reader, recorder, rest, served, until};

const SHORT: Duration = Duration::from_millis(5);
const NEVER: Duration = Duration::from_secs(1_000_000);

#[test]
fn t32_a_timer_fires_once_and_never_early() {
    let (mut subscriber, _host, id) = served(&Inner::by(Way::Pair));
    subscriber.streams().set_timer(id, Some(NEVER));
    subscriber.streams().set_timer(id, Some(SHORT));
    let watch = Stopwatch::start();
    until(&mut subscriber, |subscriber| {
        subscriber.handler().count(Told::Timer) > 0
    });
    assert!(watch.elapsed() >= SHORT);
    rest(&mut subscriber);
    assert_eq!(subscriber.handler().told, [(Told::Timer, id)]);
}

#[test]
fn a_cancelled_timer_does_not_fire() {
    let (mut subscriber, _one, silent) = served(&Inner::by(Way::Pair));
    let (_two, later) = add(&mut subscriber, &Inner::by(Way::Pair));
    subscriber.streams().set_timer(silent, Some(SHORT));
    subscriber.streams().set_timer(silent, None);
    subscriber.streams().set_timer(later, Some(2 * SHORT));
    until(&mut subscriber, |subscriber| {
        subscriber.handler().count(Told::Timer) > 0
    });
    assert_eq!(subscriber.handler().told, [(Told::Timer, later)]);
}

#[test]
fn a_closed_streams_timer_does_not_fire_for_its_successor() {
    let (mut subscriber, _one, first) = served(&Inner::by(Way::Pair));
    subscriber.streams().set_timer(first, Some(SHORT));
    subscriber.streams().close(first);
    let (_two, second) = add(&mut subscriber, &Inner::by(Way::Pair));
    subscriber.streams().set_timer(second, Some(2 * SHORT));
    until(&mut subscriber, |subscriber| {
        subscriber.handler().count(Told::Timer) > 0
    });
    assert_eq!(subscriber.handler().count(Told::Timer), 1);
    assert!(subscriber.handler().told.contains(&(Told::Timer, second)));
}

#[test]
fn an_idle_stream_fails_and_a_busy_one_does_not() {
    const IDLE: Duration = Duration::from_millis(50);
    let mut subscriber = reader(StreamLimits::default().idle(Some(IDLE)));
    let (_idle_host, idle) = add(&mut subscriber, &Inner::by(Way::Pair));
    let (_busy_host, busy) = add(&mut subscriber, &Inner::by(Way::Pair));
    let (mut last, mut longest) = (Stopwatch::start(), Duration::ZERO);
    until(&mut subscriber, |subscriber| {
        longest = longest.max(last.elapsed());
        last = Stopwatch::start();
        subscriber.streams().write(busy, b"x");
        subscriber
            .streams()
            .set_timer(busy, Some(Duration::from_millis(1)));
        subscriber.handler().count(Told::Closed) > 0
    });
    let told = &subscriber.handler().told;
    assert!(told.contains(&(Told::Failed("idle"), idle)));
    // If this thread stalls, the other stream is idle as well.
    assert!(longest >= IDLE || !told.contains(&(Told::Failed("idle"), busy)));
}

#[test]
fn all_timers_fire_even_if_one_wake_up_cannot_serve_them() {
    let mut subscriber = recorder(
        StreamLimits::default().events(2),
        |_: &mut Streams<()>, _: StreamId, _| {},
    );
    let mut hosts = Vec::new();
    for _ in 0..20 {
        let (host, id) = add(&mut subscriber, &Inner::by(Way::Pair));
        subscriber.streams().set_timer(id, Some(Duration::ZERO));
        hosts.push(host);
    }
    until(&mut subscriber, |subscriber| {
        subscriber.handler().count(Told::Timer) == 20
    });
    rest(&mut subscriber);
}
