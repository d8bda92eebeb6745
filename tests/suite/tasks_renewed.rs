// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Tasks that poll with another waker each time. `Waker::will_wake` is best effort, so a task need
//! not be recognised.

use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use vsock_backend_api::VsockBackend;
use vsock_inner::{VsockInnerBackend, VsockInnerListener, VsockInnerStream};
use vsock_tests::assert_fails;
use vsock_tests::inner::Inner;
use vsock_tests::tasks::Count;

use crate::listening;

const PORT: u32 = 1024;
/// More polls than a listener keeps wakers.
const POLLS: usize = 5000;

/// A task. None of its wakers equals another.
struct Task(Arc<Count>);

/// A waker of a task, in an allocation of its own.
struct Renewed(Arc<Count>);

impl Wake for Renewed {
    fn wake(self: Arc<Self>) {
        self.0.wake_by_ref();
    }
}

impl Task {
    fn new() -> Self {
        Self(Count::new().0)
    }

    /// Polls with a new waker.
    fn poll<T>(&self, poll: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        let waker = Waker::from(Arc::new(Renewed(Arc::clone(&self.0))));
        poll(&mut Context::from_waker(&waker))
    }

    fn accept(&self, listener: &VsockInnerListener) -> Poll<std::io::Result<VsockInnerStream>> {
        self.poll(|cx| listener.poll_accept(cx))
    }

    fn woken(&self) -> usize {
        self.0.woken()
    }

    /// The number of its wakers that are kept.
    fn kept(&self) -> usize {
        Arc::strong_count(&self.0) - 1
    }
}

/// The result of a poll that is ready.
#[track_caller]
fn done<T>(polled: Poll<T>) -> T {
    match polled {
        Poll::Ready(done) => done,
        Poll::Pending => panic!("pending"),
    }
}

#[test]
fn a_task_that_accepts_does_not_keep_itself_awake() {
    let (backend, listener) = listening();
    let task = Task::new();
    let mut awake = 0;
    for _ in 0..POLLS {
        let before = task.woken();
        assert!(task.accept(&listener).is_pending());
        awake += usize::from(task.woken() > before);
        assert!(task.kept() <= 1024, "{}", task.kept());
    }
    // Each time the places are full, all are emptied.
    assert!(awake <= POLLS / 1024, "{awake} polls have woken their task");
    let before = task.woken();
    let _device = backend.connect(PORT).unwrap();
    assert!(task.woken() > before);
    assert_eq!(task.kept(), 0);
    done(task.accept(&listener)).unwrap();
}

#[test]
fn a_task_that_accepts_takes_no_wake_up_from_another() {
    let (backend, listener) = listening();
    let (renewed, other) = (Task::new(), Task::new());
    assert!(other.accept(&listener).is_pending());
    for _ in 0..POLLS {
        assert!(renewed.accept(&listener).is_pending());
        if other.woken() > 0 {
            break; // to poll again
        }
    }
    assert!(other.accept(&listener).is_pending());
    let before = other.woken();
    let _device = backend.connect(PORT).unwrap();
    assert!(other.woken() > before);
}

#[test]
fn a_task_that_accepts_is_cancelled_until_it_is_resumed() {
    let (backend, listener) = listening();
    let canceller = listener.canceller();
    let task = Task::new();
    for _ in 0..3 {
        assert!(task.accept(&listener).is_pending());
        let before = task.woken();
        canceller.cancel();
        assert!(task.woken() > before);
        assert_fails(done(task.accept(&listener)), ErrorKind::Interrupted);
        canceller.resume();
        assert!(task.accept(&listener).is_pending());
    }
    let before = task.woken();
    let _device = backend.connect(PORT).unwrap();
    assert!(task.woken() > before);
    done(task.accept(&listener)).unwrap();
}

#[test]
fn a_backend_that_ends_leaves_no_waker_of_a_cancelled_task() {
    let (backend, listener) = listening();
    let canceller = listener.canceller();
    let task = Task::new();
    for _ in 0..3 {
        assert!(task.accept(&listener).is_pending());
        canceller.cancel();
        canceller.resume();
    }
    assert!(task.accept(&listener).is_pending());
    drop(backend);
    assert_eq!(task.kept(), 0);
    assert_fails(done(task.accept(&listener)), ErrorKind::NotConnected);
}

#[test]
fn a_stream_keeps_one_waker_for_each_direction() {
    let (mut near, mut far) = VsockInnerStream::pair_with(&Inner::holding(8).config).unwrap();
    near.write_all(&[0; 8]).unwrap();
    let (reads, writes) = (Task::new(), Task::new());
    for _ in 0..POLLS {
        assert!(reads.poll(|cx| near.poll_read(cx, &mut [0])).is_pending());
        assert!(writes.poll(|cx| near.poll_write(cx, &[1])).is_pending());
        assert_eq!((reads.kept(), writes.kept()), (1, 1));
    }
    assert_eq!((reads.woken(), writes.woken()), (0, 0));
    far.write_all(&[1]).unwrap();
    assert_eq!(far.read(&mut [0; 8]).unwrap(), 8);
    assert_eq!((reads.woken(), writes.woken()), (1, 1));
    assert_eq!((reads.kept(), writes.kept()), (0, 0));
    assert_eq!(
        done(reads.poll(|cx| near.poll_read(cx, &mut [0]))).unwrap(),
        1
    );
    assert_eq!(
        done(writes.poll(|cx| near.poll_write(cx, &[1]))).unwrap(),
        1
    );
    done(writes.poll(|cx| near.poll_shutdown(cx))).unwrap();
}

#[test]
fn a_resumed_cancellation_still_ends_each_wait_of_a_stream_once() {
    let (mut near, _far) = VsockInnerStream::pair_with(&Inner::holding(8).config).unwrap();
    near.write_all(&[0; 8]).unwrap();
    let canceller = near.canceller();
    let (reads, writes) = (Task::new(), Task::new());
    for round in 1..4 {
        for _ in 0..3 {
            assert!(reads.poll(|cx| near.poll_read(cx, &mut [0])).is_pending());
            assert!(writes.poll(|cx| near.poll_write(cx, &[1])).is_pending());
        }
        canceller.cancel();
        canceller.resume();
        assert_eq!((reads.woken(), writes.woken()), (round, round));
        let read = reads.poll(|cx| near.poll_read(cx, &mut [0]));
        assert_fails(done(read), ErrorKind::Interrupted);
        let written = writes.poll(|cx| near.poll_write(cx, &[1]));
        assert_fails(done(written), ErrorKind::Interrupted);
    }
    assert!(reads.poll(|cx| near.poll_read(cx, &mut [0])).is_pending());
    assert!(writes.poll(|cx| near.poll_write(cx, &[1])).is_pending());
    drop(near);
    assert_eq!((reads.kept(), writes.kept()), (0, 0));
}

#[test]
fn a_task_that_connects_keeps_one_waker_and_is_woken() {
    let mut backend = VsockInnerBackend::new().unwrap();
    let mut near = backend.get_connector().start_connect_to(PORT).unwrap();
    let canceller = near.canceller();
    let task = Task::new();
    let mut connected = |expected: usize| {
        for _ in 0..POLLS {
            assert!(task.poll(|cx| near.poll_connected(cx)).is_pending());
            assert_eq!(task.kept(), 1);
        }
        canceller.cancel();
        canceller.resume();
        assert_eq!(task.woken(), expected);
        let ended = done(task.poll(|cx| near.poll_connected(cx)));
        assert_fails(ended, ErrorKind::Interrupted);
    };
    connected(1);
    connected(2);
    assert!(task.poll(|cx| near.poll_connected(cx)).is_pending());
    let mut device = backend.accept().unwrap();
    assert_eq!(device.requested_port(), Some(PORT));
    device.confirm(1).unwrap();
    assert_eq!((task.woken(), task.kept()), (3, 0));
    done(task.poll(|cx| near.poll_connected(cx))).unwrap();
}
