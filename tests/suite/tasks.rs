// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Async tasks that read and write.

use std::fmt::Debug;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use vsock_backend_api::VsockStream;
use vsock_compliance::poll::{is_readable, is_writable};
use vsock_inner::{VsockInnerListener, VsockInnerReader, VsockInnerStream, VsockInnerWriter};
use vsock_tests::assert_fails;
use vsock_tests::inner::Inner;
use vsock_tests::tasks::{Count, run};

use crate::{soon, waiting};

#[test]
fn async_types_can_be_made_from_streams_halves_and_listeners() {
    fn traits<T: Debug + Send + Sync + Unpin + 'static>() {}
    traits::<VsockInnerStream>();
    traits::<VsockInnerReader>();
    traits::<VsockInnerWriter>();
    traits::<VsockInnerListener>();
}

/// Checks how a task's call fails.
#[track_caller]
fn assert_poll_fails<T: Debug>(polled: Poll<std::io::Result<T>>, kind: ErrorKind) {
    match polled {
        Poll::Ready(done) => assert_fails(done, kind),
        Poll::Pending => panic!("pending, not {kind}"),
    }
}

/// Returns a pair of this capacity whose first end cannot write.
fn full(capacity: usize) -> (VsockInnerStream, VsockInnerStream) {
    let (mut near, far) = VsockInnerStream::pair_with(&Inner::holding(capacity).config).unwrap();
    near.write_all(&vec![0; capacity]).unwrap();
    (near, far)
}

#[test]
fn a_task_waits_in_either_mode_with_any_timeout() {
    let (mut near, mut far) = full(8);
    let brief = Some(Duration::from_nanos(1));
    far.set_write_timeout(brief).unwrap();
    near.set_read_timeout(brief).unwrap();
    near.set_write_timeout(brief).unwrap();
    for nonblocking in [true, false] {
        near.set_nonblocking(nonblocking).unwrap();
        let (reads, reading) = Count::new();
        let (writes, writing) = Count::new();
        let read = near.poll_read(&mut Context::from_waker(&reading), &mut [0; 8]);
        assert!(read.is_pending());
        let write = near.poll_write(&mut Context::from_waker(&writing), &[1]);
        assert!(write.is_pending());
        assert_eq!(far.read(&mut [0; 8]).unwrap(), 8);
        assert_eq!((reads.woken(), writes.woken()), (0, 1));
        far.write_all(&[2]).unwrap();
        assert_eq!((reads.woken(), writes.woken()), (1, 1));
        assert_eq!(near.read(&mut [0; 8]).unwrap(), 1);
        assert_eq!(near.write(&[0; 8]).unwrap(), 8);
    }
}

#[test]
fn calls_without_a_byte_are_ready_and_leave_no_waker() {
    let (mut near, _far) = full(8);
    let (count, waker) = Count::new();
    let cx = &mut Context::from_waker(&waker);
    let none = |polled| matches!(polled, Poll::Ready(Ok(0)));
    assert!(none(near.poll_read(cx, &mut [])));
    assert!(none(near.poll_read_vectored(cx, &mut [])));
    assert!(none(near.poll_read_with(cx, 0, |_| unreachable!())));
    assert!(none(near.poll_write(cx, &[])));
    assert!(none(near.poll_write_vectored(cx, &[])));
    assert_eq!(Arc::strong_count(&count), 2, "the count and its waker");
}

#[test]
fn a_task_whose_write_was_refused_is_woken_once_its_share_is_free() {
    let (mut near, mut far) = full(16);
    let (count, waker) = Count::new();
    let cx = &mut Context::from_waker(&waker);
    assert!(near.poll_write(cx, &[1]).is_pending());
    for _ in 0..3 {
        far.read_exact(&mut [0]).unwrap();
        assert_eq!(count.woken(), 0, "a quarter must be free");
        assert!(near.poll_write(cx, &[1]).is_pending());
    }
    far.read_exact(&mut [0]).unwrap();
    assert_eq!(count.woken(), 1);
    let written = near.poll_write(cx, &[1; 100]);
    assert!(matches!(written, Poll::Ready(Ok(4))));
}

#[test]
fn a_waker_is_kept_until_it_is_woken_or_replaced_or_its_end_is_dropped() {
    let (mut near, mut far) = VsockInnerStream::pair().unwrap();
    let [first, second, third] = [(); 3].map(|()| Count::new());
    let leave = |near: &mut VsockInnerStream, waker: &Waker| {
        let cx = &mut Context::from_waker(waker);
        assert!(near.poll_read(cx, &mut [0]).is_pending());
    };
    leave(&mut near, &first.1);
    leave(&mut near, &first.1);
    assert_eq!(Arc::strong_count(&first.0), 3, "it is kept once");
    leave(&mut near, &second.1);
    assert_eq!(
        Arc::strong_count(&first.0),
        2,
        "the new one has replaced it"
    );
    far.write_all(&[1]).unwrap();
    assert_eq!(Arc::strong_count(&second.0), 2, "it was woken");
    near.read_exact(&mut [0]).unwrap();
    leave(&mut near, &third.1);
    drop(near);
    assert_eq!(Arc::strong_count(&third.0), 2, "its end was dropped");
    let woken = [first, second, third].map(|(count, _)| count.woken());
    assert_eq!(woken, [0, 1, 0], "only one was woken");
}

#[test]
fn halves_are_polled_by_two_tasks() {
    let (near, mut far) = full(4);
    let (mut reader, mut writer) = near.into_split();
    let reading = waiting(move || {
        let mut byte = [0];
        run(|cx| reader.poll_read(cx, &mut byte)).unwrap();
        byte
    });
    let writing = waiting(move || run(|cx| writer.poll_write(cx, &[2])).unwrap());
    far.write_all(&[1]).unwrap();
    assert_eq!(reading.finish(soon()).unwrap(), [1]);
    far.read_exact(&mut [0; 4]).unwrap();
    assert_eq!(writing.finish(soon()).unwrap(), 1);
}

#[test]
fn a_task_that_has_shut_down_gets_the_same_result_as_a_thread() {
    let (mut near, mut far) = VsockInnerStream::pair().unwrap();
    let (count, waker) = Count::new();
    let cx = &mut Context::from_waker(&waker);
    assert!(far.poll_read(cx, &mut [0]).is_pending());
    assert!(matches!(near.poll_shutdown(cx), Poll::Ready(Ok(()))));
    assert!(matches!(near.poll_shutdown(cx), Poll::Ready(Ok(()))));
    assert_eq!(count.woken(), 1);
    assert!(matches!(far.poll_read(cx, &mut [0]), Poll::Ready(Ok(0))));
    assert_poll_fails(near.poll_write(cx, &[1]), ErrorKind::BrokenPipe);
    far.abort();
    assert!(matches!(near.poll_read(cx, &mut [0]), Poll::Ready(Err(_))));
}

#[test]
fn a_read_through_a_callback_is_a_read() {
    const LEN: usize = 100_000; // several blocks
    let (mut near, mut far) = VsockInnerStream::pair().unwrap();
    let sent: Vec<u8> = (0..LEN).map(|at| u8::try_from(at % 251).unwrap()).collect();
    far.write_all(&sent).unwrap();
    let mut got = Vec::new();
    for max in [1, 50_000, usize::MAX] {
        let before = got.len();
        let read = run(|cx| near.poll_read_with(cx, max, |piece| got.extend_from_slice(piece)));
        assert_eq!(read.unwrap(), got.len() - before);
    }
    assert!(got == sent);
    let (_, waker) = Count::new();
    let cx = &mut Context::from_waker(&waker);
    assert!(near.poll_read_with(cx, 1, |_| unreachable!()).is_pending());
}

#[test]
fn t132_a_read_whose_callback_panics_takes_no_byte() {
    let (mut near, mut far) = full(40_000);
    far.set_nonblocking(true).unwrap();
    let (count, waker) = Count::new();
    assert!(
        near.poll_write(&mut Context::from_waker(&waker), &[1])
            .is_pending()
    );
    let mut pieces = 0;
    let taken = catch_unwind(AssertUnwindSafe(|| {
        run(|cx| {
            far.poll_read_with(cx, 40_000, |_| {
                pieces += 1;
                assert_eq!(pieces, 1, "the second piece is not passed");
            })
        })
    }));
    taken.unwrap_err();
    assert_eq!((far.queued_in(), count.woken()), (40_000, 0));
    assert_eq!(far.read(&mut vec![0; 50_000]).unwrap(), 40_000);
    assert_eq!(count.woken(), 1);
}

/// A waker that panics when it is woken.
struct PanicsWoken;

impl Wake for PanicsWoken {
    fn wake(self: Arc<Self>) {
        panic!("a waker panics when it is woken");
    }
}

/// A waker that panics when its last clone is dropped, also after a wake-up.
struct PanicsDropped;

impl Wake for PanicsDropped {
    fn wake(self: Arc<Self>) {}
}

impl Drop for PanicsDropped {
    fn drop(&mut self) {
        panic!("a waker panics when it is dropped");
    }
}

/// Registers a waker for both directions of `stream`, neither of which is ready.
fn leave(stream: &mut VsockInnerStream, waker: impl Wake + Send + Sync + 'static) {
    let waker = Waker::from(Arc::new(waker));
    let cx = &mut Context::from_waker(&waker);
    assert!(stream.poll_read(cx, &mut [0]).is_pending());
    assert!(stream.poll_write(cx, &[0]).is_pending());
}

#[test]
fn t132_a_waker_that_panics_does_not_affect_the_peer() {
    let (mut near, mut far) = full(8);
    let (near_fd, far_fd) = (near.write_ready_fd().unwrap(), far.as_raw_fd());
    for _ in 0..3 {
        leave(&mut near, PanicsWoken);
        assert_eq!(far.read(&mut [0; 8]).unwrap(), 8);
        assert!(!is_readable(far_fd).unwrap(), "its descriptor is correct");
        assert!(is_writable(near_fd).unwrap());
        assert_eq!(far.write(&[1; 8]).unwrap(), 8);
        assert_eq!(near.read(&mut [0; 9]).unwrap(), 8);
        assert_eq!(near.write(&[1; 8]).unwrap(), 8);
    }
    leave(&mut near, PanicsWoken);
    drop(far);
    assert!(near.peer_gone());
    assert_fails(near.write(&[1]), ErrorKind::ConnectionReset);
}

#[test]
fn t132_a_waker_that_panics_when_it_is_dropped_affects_neither_end() {
    let (mut near, mut far) = full(8);
    leave(&mut near, PanicsDropped);
    leave(&mut near, PanicsDropped); // the first waker is replaced
    far.write_all(&[1]).unwrap(); // the second waker is woken
    near.read_exact(&mut [0]).unwrap();
    leave(&mut near, PanicsDropped);
    drop(near);
    assert!(far.peer_gone());
    far.read_exact(&mut [0; 8]).unwrap();
    assert_eq!(far.read(&mut [0]).unwrap(), 0, "a graceful end");
}

#[test]
fn t132_a_waker_that_panics_while_its_peer_unwinds_does_not_end_the_process() {
    let (mut near, far) = full(8);
    leave(&mut near, PanicsWoken);
    let unwound = catch_unwind(AssertUnwindSafe(move || {
        let _far = far;
        panic!("an end is dropped by a panic");
    }));
    assert!(unwound.is_err() && near.peer_gone());
    assert_fails(near.read(&mut [0]), ErrorKind::ConnectionReset);
}

/// A waker that runs a closure.
struct Acting<F>(F);

impl<F: Fn() + Send + Sync> Wake for Acting<F> {
    fn wake(self: Arc<Self>) {
        self.0();
    }
}

/// A waker that runs its task.
struct Inline<F>(F);

impl<F: Fn(&Waker) + Send + Sync + 'static> Wake for Inline<F> {
    fn wake(self: Arc<Self>) {
        let waker = Waker::from(Arc::clone(&self));
        (self.0)(&waker);
    }
}

#[test]
fn a_wake_up_may_run_the_woken_task_immediately() {
    let (mut near, far) = VsockInnerStream::pair_with(&Inner::holding(4).config).unwrap();
    let far = Arc::new(Mutex::new(far));
    let echo = {
        let far = Arc::clone(&far);
        move |waker: &Waker| {
            // A task that is already running need not run again.
            let Ok(mut far) = far.try_lock() else { return };
            let mut byte = [0];
            let cx = &mut Context::from_waker(waker);
            while let Poll::Ready(Ok(1)) = far.poll_read(cx, &mut byte) {
                assert_eq!(far.write(&byte).unwrap(), 1);
            }
        }
    };
    Waker::from(Arc::new(Inline(echo))).wake();
    for byte in 0..100 {
        near.write_all(&[byte]).unwrap();
        let mut back = [0];
        near.set_nonblocking(true).unwrap();
        assert_eq!(
            near.read(&mut back).unwrap(),
            1,
            "it has run within the write"
        );
        assert_eq!(back, [byte]);
    }
}

#[test]
fn a_wake_up_may_drop_the_end_where_the_waker_was_registered() {
    for act in [
        (|far: &mut VsockInnerStream| far.write_all(&[1]).unwrap()) as fn(&mut VsockInnerStream),
        |far| assert_eq!(far.read(&mut [0; 8]).unwrap(), 8),
        |far| far.shutdown(std::net::Shutdown::Both).unwrap(),
    ] {
        let (near, mut far) = full(8);
        let place = Arc::new(Mutex::new(Some(near)));
        let to_drop = Arc::clone(&place);
        leave(
            place.lock().unwrap().as_mut().unwrap(),
            Acting(move || drop(to_drop.lock().unwrap().take())),
        );
        act(&mut far);
        assert!(far.peer_gone());
    }
}

#[test]
fn a_wait_of_a_task_is_cancelled_and_so_is_every_later_one_until_it_is_resumed() {
    let (mut near, mut far) = full(8);
    let canceller = near.canceller();
    let (count, waker) = Count::new();
    let cx = &mut Context::from_waker(&waker);
    assert!(near.poll_read(cx, &mut [0]).is_pending());
    assert!(near.poll_write(cx, &[0]).is_pending());
    canceller.cancel();
    assert_eq!(count.woken(), 2, "both directions were woken");
    for _ in 0..2 {
        assert_poll_fails(near.poll_read(cx, &mut [0]), ErrorKind::Interrupted);
        assert_poll_fails(near.poll_write(cx, &[0]), ErrorKind::Interrupted);
    }
    far.write_all(&[1]).unwrap();
    let read = near.poll_read(cx, &mut [0]);
    assert!(matches!(read, Poll::Ready(Ok(1))), "it does not wait");
    canceller.resume();
    assert!(near.poll_read(cx, &mut [0]).is_pending());
    far.write_all(&[1]).unwrap();
    assert_eq!(count.woken(), 3);
}

#[test]
fn a_tasks_wait_is_cancelled_even_if_it_is_resumed_immediately() {
    let (mut near, mut far) = VsockInnerStream::pair().unwrap();
    let canceller = near.canceller();
    let (count, waker) = Count::new();
    let cx = &mut Context::from_waker(&waker);
    assert!(near.poll_read(cx, &mut [0]).is_pending());
    canceller.cancel();
    canceller.resume();
    assert_eq!(count.woken(), 1);
    assert_poll_fails(near.poll_read(cx, &mut [0]), ErrorKind::Interrupted);
    assert!(near.poll_read(cx, &mut [0]).is_pending(), "once");
    // A wait that ended in another way was not cancelled.
    far.write_all(&[1]).unwrap();
    canceller.cancel();
    canceller.resume();
    assert!(matches!(near.poll_read(cx, &mut [0]), Poll::Ready(Ok(1))));
    assert!(near.poll_read(cx, &mut [0]).is_pending());
}
