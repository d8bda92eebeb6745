// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How a subscriber reaches an event manager, and how other threads reach a subscriber.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use event_manager::{EventManager, MutEventSubscriber, SubscriberOps};
use vsock_backend_api::VsockStream;
use vsock_epoll::services::Echo;
use vsock_epoll::{
    AcceptLimits, BackendSubscriber, LoopError, RemoteError, StreamLimits, StreamSubscriber,
};
use vsock_inner::{VsockInnerBackend, VsockInnerStream};

use crate::{Remote, TURN, in_time, looping, soon, waiting};

type Shared = Arc<Mutex<StreamSubscriber<Echo>>>;

fn echo() -> StreamSubscriber<Echo> {
    StreamSubscriber::new(Echo::new(), StreamLimits::default()).unwrap()
}

#[test]
fn boxed_subscribers_serve_a_backend_and_its_streams() {
    let backend = VsockInnerBackend::new().unwrap();
    let connector = backend.get_connector();
    let streams: Shared = Arc::new(Mutex::new(echo()));
    let limits = AcceptLimits::default();
    let handler = Arc::clone(&streams);
    let acceptor = BackendSubscriber::new(Box::new(backend), handler, limits).unwrap();
    let mut manager: EventManager<Box<dyn MutEventSubscriber>> = EventManager::new().unwrap();
    manager.add_subscriber(Box::new(acceptor));
    manager.add_subscriber(Box::new(Arc::clone(&streams)));
    let host = thread::spawn(move || {
        let mut host = connector.connect_stream().unwrap();
        host.write_all(b"hello").unwrap();
        host.shutdown(Shutdown::Write).unwrap();
        let mut back = String::new();
        host.read_to_string(&mut back).unwrap();
        back
    });
    let deadline = soon();
    while streams.lock().unwrap().counters().closes == 0 {
        waiting(deadline, streams.lock().unwrap().counters());
        manager.run_with_timeout(TURN).unwrap();
    }
    assert_eq!(in_time(|| host.join().unwrap()), "hello");
    assert!(streams.lock().unwrap().take_error().is_none());
}

#[test]
fn a_descriptor_that_the_manager_refuses_is_recorded_as_an_error() {
    let streams: Shared = Arc::new(Mutex::new(echo()));
    let mut manager = EventManager::new().unwrap();
    manager.add_subscriber(Arc::clone(&streams));
    assert!(streams.lock().unwrap().take_error().is_none());
    manager.add_subscriber(Arc::clone(&streams));
    let error = streams.lock().unwrap().take_error();
    assert!(matches!(
        error,
        Some(LoopError::Manager(
            event_manager::Error::FdAlreadyRegistered
        ))
    ));
    assert!(streams.lock().unwrap().take_error().is_none());
    assert_eq!(streams.lock().unwrap().counters().errors, 1);
}

#[test]
fn a_subscriber_can_move_to_another_manager() {
    let mut first = EventManager::new().unwrap();
    let id = first.add_subscriber(echo());
    let (mut host, device) = VsockInnerStream::pair().unwrap();
    let streams = first.subscriber_mut(id).unwrap().streams();
    streams.add(Box::new(device), ()).unwrap();
    let moved = first.remove_subscriber(id).unwrap();
    let mut second = EventManager::new().unwrap();
    second.add_subscriber(moved);
    host.write_all(b"x").unwrap();
    second.run_with_timeout(20_000).unwrap();
    host.set_nonblocking(true).unwrap();
    host.read_exact(&mut [0]).unwrap();
}

#[test]
fn another_thread_adds_writes_counts_closes_and_drains() {
    let (handle, looping) = looping(|subscriber| subscriber.streams().is_finished());
    let (remote, blind) = (handle(|found| Some(found)), handle(|_| None));
    let (mut host, device) = VsockInnerStream::pair().unwrap();
    host.set_read_timeout(Some(soon().left())).unwrap();
    let add = |device| remote.call(|streams| streams.add(Box::new(device), ()).unwrap());
    let id = add(device).unwrap();
    let (other, device) = VsockInnerStream::pair().unwrap();
    let closed = add(device).unwrap();
    let count = |from: &Remote| from.call(|streams| streams.len());
    assert_eq!(count(&remote.clone()).unwrap(), 2);
    for there in [true, false] {
        let close = remote.call(move |streams| streams.close(closed));
        assert_eq!(close.unwrap(), there);
    }
    assert!(other.peer_gone());
    assert_eq!(
        remote
            .call(move |streams| streams.write(id, b"hello"))
            .unwrap(),
        5
    );
    let mut got = [0; 5];
    host.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"hello");
    assert!(matches!(count(&blind), Err(RemoteError::OtherSubscriber)));
    assert_eq!(
        remote.call(|streams| streams.counters()).unwrap().accepts,
        2
    );
    assert!(format!("{remote:?}").contains("subscriber"));

    let timeout = Some(Duration::from_secs(20));
    remote.call(move |streams| streams.drain(timeout)).unwrap();
    looping.join().unwrap();
    assert_eq!(host.read(&mut got).unwrap(), 0);
    assert!(matches!(count(&remote), Err(RemoteError::Manager(_))));
}

#[test]
fn another_thread_stops_the_loop_and_gets_a_refused_stream_back() {
    let (handle, looping) = looping(|subscriber| subscriber.counters().refused > 0);
    let remote = handle(|found| Some(found));
    remote.call(|streams| streams.stop()).unwrap();
    let (_host, device) = VsockInnerStream::pair().unwrap();
    let added = remote.call(|streams| streams.add(Box::new(device), ()));
    let error = added.unwrap().unwrap_err();
    assert!(format!("{error:?}").contains("Ending"));
    looping.join().unwrap();
}
