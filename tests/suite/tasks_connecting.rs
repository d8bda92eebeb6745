// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Async tasks that connect and accept.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use vsock_backend_api::{VsockBackend, VsockStream};
use vsock_inner::{VsockInnerBackend, VsockInnerListener, VsockInnerStream};
use vsock_tests::assert_fails;
use vsock_tests::inner::Inner;
use vsock_tests::tasks::{Count, run};

use crate::{listening, soon, waiting};

const PORT: u32 = 1024;

/// Returns a connecting stream and the device's end. The request fills the pipe: an answer makes no
/// space.
fn pending() -> (VsockInnerStream, Box<dyn VsockStream>) {
    let config = Inner::holding(b"CONNECT 1024\n".len()).config;
    let mut backend = VsockInnerBackend::with_config(config).unwrap();
    let stream = backend.get_connector().start_connect_to(PORT).unwrap();
    (stream, backend.accept().unwrap())
}

fn poll_connected(stream: &mut VsockInnerStream, waker: &Waker) -> Poll<std::io::Result<()>> {
    stream.poll_connected(&mut Context::from_waker(waker))
}

/// Returns the result of a waiting task after the device has answered in this way.
#[track_caller]
fn connect(answer: impl FnOnce(&mut dyn VsockStream)) -> std::io::Result<()> {
    let (mut near, mut far) = pending();
    let (count, waker) = Count::new();
    assert!(poll_connected(&mut near, &waker).is_pending());
    answer(&mut *far);
    assert_eq!(count.woken(), 1);
    let first = run(|cx| near.poll_connected(cx));
    let again = run(|cx| near.poll_connected(cx));
    let kind = |done: &std::io::Result<()>| done.as_ref().err().map(std::io::Error::kind);
    assert_eq!(kind(&first), kind(&again), "the result does not change");
    first
}

#[test]
fn a_task_waits_until_it_is_connected() {
    connect(|far| far.write_all(b"OK 1\n").unwrap()).unwrap();
    connect(|far| {
        assert_eq!(far.requested_port(), Some(PORT));
        far.confirm(1).unwrap();
    })
    .unwrap();
}

#[test]
fn a_task_learns_that_the_connection_was_refused() {
    let wrong = connect(|far| far.write_all(b"NO\n").unwrap());
    assert_fails(wrong, ErrorKind::InvalidData);
    let refused = connect(|far| far.shutdown(Shutdown::Write).unwrap());
    assert_fails(refused, ErrorKind::ConnectionRefused);
}

#[test]
fn a_task_whose_device_ends_is_refused() {
    let (mut near, far) = pending();
    let (count, waker) = Count::new();
    assert!(poll_connected(&mut near, &waker).is_pending());
    drop(far);
    assert!(count.woken() > 0);
    let refused = run(|cx| near.poll_connected(cx));
    assert_fails(refused, ErrorKind::ConnectionRefused);
    for refused in [
        run(|cx| near.poll_read(cx, &mut [0])),
        run(|cx| near.poll_write(cx, &[0])),
    ] {
        assert_fails(refused, ErrorKind::ConnectionRefused);
    }
}

#[test]
fn a_task_that_has_shut_down_before_it_is_connected_does_not_wait() {
    let (mut near, _far) = pending();
    near.shutdown(Shutdown::Write).unwrap();
    let (_, waker) = Count::new();
    let Poll::Ready(ended) = poll_connected(&mut near, &waker) else {
        panic!("the task waits")
    };
    assert_fails(ended, ErrorKind::BrokenPipe);
}

#[test]
fn a_task_that_connects_is_cancelled() {
    let (mut near, mut far) = pending();
    let canceller = near.canceller();
    let (count, waker) = Count::new();
    assert!(poll_connected(&mut near, &waker).is_pending());
    canceller.cancel();
    assert_eq!(count.woken(), 1);
    assert_fails(run(|cx| near.poll_connected(cx)), ErrorKind::Interrupted);
    canceller.resume();
    assert!(poll_connected(&mut near, &waker).is_pending());
    far.write_all(b"OK 1\n").unwrap();
    run(|cx| near.poll_connected(cx)).unwrap();
}

#[test]
fn tasks_that_read_and_write_early_wait_for_the_connection() {
    let (mut near, mut far) = pending();
    let [(reads, reading), (writes, writing)] = [(); 2].map(|()| Count::new());
    let (reading, writing) = (
        &mut Context::from_waker(&reading),
        &mut Context::from_waker(&writing),
    );
    assert!(near.poll_read(reading, &mut [0]).is_pending());
    assert!(near.poll_write(writing, &[1]).is_pending());
    assert_eq!(far.requested_port(), Some(PORT)); // makes space
    assert_eq!(writes.woken(), 0);
    far.confirm(1).unwrap();
    assert_eq!((reads.woken(), writes.woken()), (0, 1));
    assert!(matches!(near.poll_write(writing, &[1]), Poll::Ready(Ok(1))));
    far.write_all(&[2]).unwrap();
    assert_eq!(reads.woken(), 1);
    assert!(matches!(
        near.poll_read(reading, &mut [0]),
        Poll::Ready(Ok(1))
    ));
}

#[test]
fn a_stream_that_is_connected_from_the_start_does_not_wait() {
    let (mut near, far) = VsockInnerStream::pair().unwrap();
    run(|cx| near.poll_connected(cx)).unwrap();
    drop(far);
    run(|cx| near.poll_connected(cx)).unwrap();
}

#[test]
fn a_device_in_blocking_mode_that_answers_by_a_poll_never_blocks() {
    let (near, far) = pending();
    let mut far = far
        .into_any()
        .unwrap()
        .downcast::<VsockInnerStream>()
        .unwrap();
    far.set_nonblocking(false).unwrap();
    let line = format!("OK 1\n{}", "x".repeat(1000));
    let mut written = 0;
    let (_, waker) = Count::new();
    let cx = &mut Context::from_waker(&waker);
    while let Poll::Ready(done) = far.poll_write(cx, &line.as_bytes()[written..]) {
        written += done.unwrap();
    }
    assert_eq!(
        written,
        b"OK 1\n".len() + 13,
        "everything that there is space for"
    );
    assert!(near.is_connected());
}

/// Registers a waker of its own.
fn left(listener: &VsockInnerListener) -> Arc<Count> {
    let (count, waker) = Count::new();
    let polled = listener.poll_accept(&mut Context::from_waker(&waker));
    assert!(polled.is_pending());
    count
}

#[test]
fn a_task_accepts_in_either_mode() {
    let (backend, listener) = listening();
    for nonblocking in [true, false] {
        listener.set_nonblocking(nonblocking).unwrap();
        let count = left(&listener);
        let mut device = backend.connect(PORT).unwrap();
        assert_eq!(count.woken(), 1);
        let mut stream = run(|cx| listener.poll_accept(cx)).unwrap();
        device.write_all(&[1]).unwrap();
        stream.read_exact(&mut [0]).unwrap();
    }
}

#[test]
fn every_task_that_accepts_gets_a_connection() {
    const TASKS: usize = 8;
    let (backend, listener) = listening();
    let listener = Arc::new(listener);
    let accepting = [(); TASKS].map(|()| {
        let listener = Arc::clone(&listener);
        waiting(move || run(|cx| listener.poll_accept(cx)).unwrap())
    });
    let devices = [(); TASKS].map(|()| backend.connect(PORT).unwrap());
    for accepting in accepting {
        accepting.finish(soon()).unwrap();
    }
    drop(devices);
}

#[test]
fn a_dropped_future_takes_no_wake_up_from_another() {
    let (backend, listener) = listening();
    let tasks = [(); 3].map(|()| left(&listener));
    let device = backend.connect(PORT).unwrap();
    assert_eq!(tasks.each_ref().map(|count| count.woken()), [1; 3]);
    assert_eq!(
        tasks.each_ref().map(Arc::strong_count),
        [1; 3],
        "no waker is kept"
    );
    drop(device);
}

#[test]
fn a_task_that_asks_again_is_woken_once() {
    let (backend, listener) = listening();
    let (count, waker) = Count::new();
    for _ in 0..5 {
        let polled = listener.poll_accept(&mut Context::from_waker(&waker));
        assert!(polled.is_pending());
    }
    assert_eq!(Arc::strong_count(&count), 3);
    let _device = backend.connect(PORT).unwrap();
    assert_eq!(count.woken(), 1);
}

#[test]
fn more_tasks_than_waker_slots_lose_no_wake_up() {
    let (backend, listener) = listening();
    let tasks: Vec<_> = (0..5000).map(|_| left(&listener)).collect();
    let kept = tasks.iter().filter(|count| Arc::strong_count(count) > 1);
    assert!(kept.count() <= 1024);
    let _device = backend.connect(PORT).unwrap();
    assert!(tasks.iter().all(|count| count.woken() == 1));
}

#[test]
fn tasks_that_accept_learn_of_the_end_of_the_backend() {
    let (backend, listener) = listening();
    let count = left(&listener);
    drop(backend);
    assert_eq!(count.woken(), 1);
    assert_fails(run(|cx| listener.poll_accept(cx)), ErrorKind::NotConnected);
}

#[test]
fn tasks_that_accept_are_cancelled_even_if_it_is_resumed_immediately() {
    let (backend, listener) = listening();
    let canceller = listener.canceller();
    let (count, waker) = Count::new();
    let cx = &mut Context::from_waker(&waker);
    assert!(listener.poll_accept(cx).is_pending());
    let other = left(&listener);
    canceller.cancel();
    assert_eq!((count.woken(), other.woken()), (1, 1));
    let cancelled = |polled: Poll<std::io::Result<VsockInnerStream>>| {
        let Poll::Ready(done) = polled else {
            return false;
        };
        done.is_err_and(|error| error.kind() == ErrorKind::Interrupted)
    };
    assert!(cancelled(listener.poll_accept(cx)));
    assert!(
        cancelled(listener.poll_accept(cx)),
        "while the cancellation lasts"
    );
    canceller.resume();
    assert!(listener.poll_accept(cx).is_pending());
    canceller.cancel();
    canceller.resume();
    assert!(cancelled(listener.poll_accept(cx)), "this task was waiting");
    assert!(listener.poll_accept(cx).is_pending(), "once");
    canceller.cancel();
    let _device = backend.connect(PORT).unwrap();
    let accepted = listener.poll_accept(cx);
    assert!(matches!(accepted, Poll::Ready(Ok(_))), "it does not wait");
}

#[test]
fn cancellations_keep_no_more_wakers_than_slots() {
    let (_backend, listener) = listening();
    let canceller = listener.canceller();
    let tasks: Vec<_> = (0..3000)
        .map(|_| {
            let count = left(&listener);
            canceller.cancel();
            canceller.resume();
            count
        })
        .collect();
    let kept = tasks.iter().filter(|count| Arc::strong_count(count) > 1);
    assert!(kept.count() <= 1024);
    drop(listener);
    assert!(tasks.iter().all(|count| Arc::strong_count(count) == 1));
}

/// A waker that panics when it is woken.
struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("a waker panics when it is woken");
    }
}

#[test]
fn t132_a_waker_that_panics_affects_neither_the_client_nor_other_tasks() {
    let (backend, listener) = listening();
    let waker = Waker::from(Arc::new(Panics));
    let polled = listener.poll_accept(&mut Context::from_waker(&waker));
    assert!(polled.is_pending());
    let other = left(&listener);
    let _device = backend.connect(PORT).unwrap();
    assert_eq!(other.woken(), 1);
    listener.accept().unwrap();
}

/// A waker that accepts when it is woken.
struct Accepting(Arc<VsockInnerListener>);

impl Wake for Accepting {
    fn wake(self: Arc<Self>) {
        let waker = Waker::from(Arc::clone(&self));
        let cx = &mut Context::from_waker(&waker);
        while let Poll::Ready(accepted) = self.0.poll_accept(cx) {
            // The waker and its peer keep each other alive.
            accepted.unwrap().write_all(b"hello").unwrap();
        }
    }
}

#[test]
fn a_wake_up_may_accept_immediately() {
    let (backend, listener) = listening();
    let listener = Arc::new(listener);
    Waker::from(Arc::new(Accepting(Arc::clone(&listener)))).wake();
    for _ in 0..3 {
        let mut device = backend.connect(PORT).unwrap();
        let mut text = [0; 5];
        device.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"hello");
    }
    drop(backend); // this wakes it to learn that the listener has ended
}
