// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A handler that panics.

use std::io::Write;
use std::sync::Arc;

use vsock_backend_api::VsockStream;
use vsock_epoll::{AcceptLimits, BackendSubscriber, Limits, More, Streams, Token};
use vsock_inner::VsockInnerBackend;
use vsock_tests::inner::{Inner, Way};

use crate::{Told, pair, recorder, rest};

#[test]
fn a_panic_closes_its_stream_and_no_other_and_leaks_nothing() {
    let witness = Arc::new(());
    let kept = Arc::clone(&witness);
    let mut victim: Option<Token> = None;
    let mut subscriber = recorder(Limits::default(), |_: &mut Streams<()>, token, told| {
        let _kept = &kept;
        if told == Told::Readable && victim.is_none() {
            victim = Some(token);
            panic!("this handler panics on purpose");
        }
    });
    let (mut one, device) = pair(&Inner::by(Way::Pair));
    subscriber.streams().add(device, ()).unwrap();
    let (mut two, device) = pair(&Inner::by(Way::Pair));
    subscriber.streams().add(device, ()).unwrap();
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
fn a_panic_for_every_call_closes_every_stream() {
    let mut subscriber = recorder(Limits::default(), |_: &mut Streams<()>, _, _| {
        panic!("this handler panics on purpose");
    });
    let mut hosts = Vec::new();
    for _ in 0..10 {
        let (mut host, device) = pair(&Inner::by(Way::Pair));
        subscriber.streams().add(device, ()).unwrap();
        host.write_all(b"x").unwrap();
        hosts.push(host);
    }
    rest(&mut subscriber);
    assert!(subscriber.streams().is_empty());
    assert_eq!(subscriber.counters().panics, 20); // readable, and closed
}

#[test]
fn an_acceptor_that_panics_goes_on_with_the_next() {
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
