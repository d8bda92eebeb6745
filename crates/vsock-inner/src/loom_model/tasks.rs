// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Tasks that wait, against what they wait for, and against everything else that may happen to a waker.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker, ready};

use loom::sync::{Condvar, Mutex};
use loom::thread;
use vsock_backend_api::VsockStream;

use super::connecting::pending;
use super::{assert_readability, assert_writability, direction, explore, pair};
use crate::backlog::{Backlog, PopError};
use crate::reader::VsockInnerReader;
use crate::stream::VsockInnerStream;
use crate::writer::VsockInnerWriter;

/// A thread that runs one task. A wake-up that is lost is a deadlock.
#[derive(Debug, Default)]
struct Executor {
    woken: Mutex<bool>,
    changed: Condvar,
}

impl Wake for Executor {
    fn wake(self: Arc<Self>) {
        *self.woken.lock().unwrap() = true;
        self.changed.notify_one();
    }
}

impl Executor {
    fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    fn run<T>(self: &Arc<Self>, mut task: impl FnMut(&mut Context<'_>) -> Poll<T>) -> T {
        let waker = Waker::from(Arc::clone(self));
        loop {
            if let Poll::Ready(done) = task(&mut Context::from_waker(&waker)) {
                return done;
            }
            let mut woken = self.woken.lock().unwrap();
            while !*woken {
                woken = self.changed.wait(woken).unwrap();
            }
            *woken = false;
        }
    }

    fn is_woken(&self) -> bool {
        *self.woken.lock().unwrap()
    }
}

fn run<T>(task: impl FnMut(&mut Context<'_>) -> Poll<T>) -> T {
    Executor::new().run(task)
}

/// Leaves a waker, unless there is something; its future is dropped then.
fn poll_once(executor: &Arc<Executor>, reader: &mut VsockInnerReader) -> Poll<usize> {
    let waker = Waker::from(Arc::clone(executor));
    let polled = reader.poll_read(&mut Context::from_waker(&waker), &mut [0; 4]);
    polled.map(Result::unwrap)
}

fn read_two(reader: &mut VsockInnerReader) -> [u8; 2] {
    let (mut two, mut at) = ([0; 2], 0);
    run(|cx| {
        while at < 2 {
            at += ready!(reader.poll_read(cx, &mut two[at..])).unwrap();
        }
        Poll::Ready(())
    });
    two
}

#[test]
fn a_task_that_reads_misses_no_byte() {
    explore(|| {
        let (mut writer, mut reader, _rest) = direction(8);
        let reading = thread::spawn(move || read_two(&mut reader));
        writer.write_all(&[1]).unwrap();
        writer.write_all(&[2]).unwrap();
        assert_eq!(reading.join().unwrap(), [1, 2]);
    });
}

#[test]
fn a_task_that_writes_misses_no_space() {
    explore(|| {
        let (mut writer, mut reader, _rest) = direction(1);
        let writing = thread::spawn(move || {
            for byte in [1, 2] {
                run(|cx| writer.poll_write(cx, &[byte])).unwrap();
            }
            writer
        });
        let mut two = [0; 2];
        reader.read_exact(&mut two).unwrap();
        let _writer = writing.join().unwrap();
        assert_eq!(two, [1, 2]);
    });
}

#[test]
fn two_tasks_move_bytes_through_a_connection_of_one() {
    explore(|| {
        let (mut writer, mut reader, _rest) = direction(1);
        let reading = thread::spawn(move || read_two(&mut reader));
        for byte in [1, 2] {
            run(|cx| writer.poll_write(cx, &[byte])).unwrap();
        }
        assert_eq!(reading.join().unwrap(), [1, 2]);
    });
}

#[test]
fn a_task_that_was_refused_is_woken_at_its_share_of_the_capacity() {
    // A refused write at a capacity of eight counts on space again from two bytes on.
    explore(|| {
        let (mut writer, mut reader, _rest) = direction(8);
        writer.write_all(&[0; 8]).unwrap();
        let writing = thread::spawn(move || run(|cx| writer.poll_write(cx, &[1])).unwrap());
        reader.read_exact(&mut [0]).unwrap();
        reader.read_exact(&mut [0]).unwrap();
        assert_eq!(writing.join().unwrap(), 1);
    });
}

/// A task that reads ends so when the peer's writer does this.
fn end_read(end: fn(VsockInnerWriter), read: Result<usize, ErrorKind>) {
    explore(move || {
        let (writer, mut reader, _rest) = direction(8);
        let ending = thread::spawn(move || end(writer));
        let got = run(|cx| reader.poll_read(cx, &mut [0]));
        assert_eq!(got.map_err(|error| error.kind()), read);
        ending.join().unwrap();
    });
}

#[test]
fn a_task_that_reads_learns_of_the_writers_drop() {
    end_read(drop, Ok(0));
}

#[test]
fn a_task_that_reads_learns_of_an_abort() {
    end_read(VsockInnerWriter::abort, Err(ErrorKind::ConnectionReset));
}

#[test]
fn a_task_that_writes_learns_of_the_peers_drop() {
    explore(|| {
        let (mut near, far) = pair(1);
        near.write_all(&[1]).unwrap();
        let dropping = thread::spawn(move || drop(far));
        let refused = loop {
            // What the drop throws away makes space, so a byte or two may still be accepted.
            if let Err(refused) = run(|cx| near.poll_write(cx, &[2])) {
                break refused;
            }
        };
        assert_eq!(refused.kind(), ErrorKind::ConnectionReset);
        dropping.join().unwrap();
    });
}

#[test]
fn a_waker_that_replaces_another_is_woken() {
    explore(|| {
        let (mut writer, mut reader, _rest) = direction(8);
        let first = Executor::new();
        let writing = thread::spawn(move || {
            writer.write_all(&[1]).unwrap();
            writer
        });
        let read = match poll_once(&first, &mut reader) {
            Poll::Ready(read) => read,
            Poll::Pending => run(|cx| reader.poll_read(cx, &mut [0; 4])).unwrap(),
        };
        assert_eq!(read, 1);
        let _writer = writing.join().unwrap();
        assert_eq!(Arc::strong_count(&first), 1, "it was woken or dropped");
    });
}

#[test]
fn a_waker_that_is_left_again_is_kept_and_woken() {
    explore(|| {
        let (mut writer, mut reader, _rest) = direction(8);
        let executor = Executor::new();
        let writing = thread::spawn(move || {
            writer.write_all(&[1]).unwrap();
            writer
        });
        let mut read = poll_once(&executor, &mut reader);
        if read.is_pending() {
            read = poll_once(&executor, &mut reader);
        }
        if read.is_pending() {
            let again = executor.run(|cx| reader.poll_read(cx, &mut [0; 4]));
            read = again.map(Poll::Ready).unwrap();
        }
        assert_eq!(read, Poll::Ready(1));
        let _writer = writing.join().unwrap();
    });
}

/// The future is dropped, and the thread goes on in another way; all of them are told.
fn go_on_by(way: fn(&mut VsockInnerReader)) {
    explore(move || {
        let (mut writer, mut reader, _rest) = direction(8);
        let dropped = Executor::new();
        let writing = thread::spawn(move || {
            writer.write_all(&[1]).unwrap();
            writer
        });
        if poll_once(&dropped, &mut reader).is_pending() {
            way(&mut reader);
        }
        let _writer = writing.join().unwrap();
        reader.as_raw_fd();
        assert_readability(&mut reader);
        drop(reader);
        assert_eq!(Arc::strong_count(&dropped), 1, "a waker was leaked");
    });
}

#[test]
fn a_thread_that_blocks_where_a_task_has_waited_is_woken() {
    go_on_by(|reader| assert_eq!(reader.read(&mut [0; 4]).unwrap(), 1));
}

#[test]
fn a_descriptor_that_is_polled_where_a_task_has_waited_is_right() {
    go_on_by(|reader| {
        reader.as_raw_fd();
        reader.set_nonblocking(true).unwrap();
        drop(reader.read(&mut [0; 4]));
    });
}

#[test]
fn a_task_waits_where_the_descriptor_was_taken() {
    explore(|| {
        let (mut writer, mut reader, _rest) = direction(8);
        reader.as_raw_fd();
        let writing = thread::spawn(move || {
            writer.write_all(&[1]).unwrap();
            writer
        });
        assert_eq!(
            run(|cx| reader.poll_read(cx, &mut [0; 4])).unwrap(),
            1,
            "one byte"
        );
        let _writer = writing.join().unwrap();
        assert_readability(&mut reader);
    });
}

#[test]
fn a_task_that_writes_waits_where_the_descriptor_was_taken() {
    explore(|| {
        let (mut writer, mut reader, _rest) = direction(1);
        writer.write_ready_fd().unwrap();
        writer.write_all(&[1]).unwrap();
        let reading = thread::spawn(move || {
            reader.read_exact(&mut [0]).unwrap();
            reader
        });
        run(|cx| writer.poll_write(cx, &[2])).unwrap();
        let _reader = reading.join().unwrap();
        assert_writability(&mut writer);
    });
}

#[test]
fn a_dropped_half_keeps_no_waker_whatever_is_in_flight() {
    explore(|| {
        let (mut writer, mut reader, _rest) = direction(8);
        let executor = Executor::new();
        let left = poll_once(&executor, &mut reader);
        assert!(left.is_pending());
        let writing = thread::spawn(move || {
            drop(writer.write(&[1]));
            writer
        });
        drop(reader);
        let _writer = writing.join().unwrap();
        assert_eq!(Arc::strong_count(&executor), 1, "a waker was leaked");
    });
}

#[test]
fn a_task_is_woken_exactly_if_something_has_come() {
    explore(|| {
        let (mut writer, mut reader, _rest) = direction(8);
        let executor = Executor::new();
        let writing = thread::spawn(move || {
            writer.write_all(&[1]).unwrap();
            writer
        });
        let left = poll_once(&executor, &mut reader).is_pending();
        let _writer = writing.join().unwrap();
        assert_eq!(executor.is_woken(), left);
    });
}

#[test]
fn a_cancellation_ends_the_wait_of_a_task() {
    explore(|| {
        let (_writer, mut reader, _rest) = direction(8);
        let canceller = reader.canceller();
        let reading = thread::spawn(move || run(|cx| reader.poll_read(cx, &mut [0])));
        canceller.cancel();
        let ended = reading.join().unwrap().unwrap_err();
        assert_eq!(ended.kind(), ErrorKind::Interrupted);
    });
}

#[test]
fn a_cancellation_that_is_taken_back_ends_the_wait_of_a_task() {
    explore(|| {
        let (_writer, mut reader, _rest) = direction(8);
        let canceller = reader.canceller();
        let executor = Executor::new();
        assert!(poll_once(&executor, &mut reader).is_pending());
        let cancelling = thread::spawn(move || {
            canceller.cancel();
            canceller.resume();
        });
        let ended = executor.run(|cx| reader.poll_read(cx, &mut [0]));
        assert_eq!(ended.unwrap_err().kind(), ErrorKind::Interrupted);
        cancelling.join().unwrap();
    });
}

#[test]
fn a_cancelled_task_loses_no_byte_and_no_wake_up() {
    explore(|| {
        let (mut writer, mut reader, _rest) = direction(8);
        let canceller = reader.canceller();
        let acting = thread::spawn(move || {
            canceller.cancel();
            canceller.resume();
            writer.write_all(&[1]).unwrap();
            writer
        });
        let first = run(|cx| reader.poll_read(cx, &mut [0; 4]));
        let _writer = acting.join().unwrap();
        match first {
            Ok(read) => assert_eq!(read, 1),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Interrupted);
                let second = run(|cx| reader.poll_read(cx, &mut [0; 4]));
                assert_eq!(second.unwrap(), 1);
            }
        }
    });
}

/// What a task that waits for its connection gets when the device does this. The request fills the pipe, so
/// that an answer makes no space.
fn connect(answer: fn(VsockInnerStream) -> Option<VsockInnerStream>, ended: Option<ErrorKind>) {
    explore(move || {
        let (mut near, far) = pending(10);
        let answering = thread::spawn(move || answer(far));
        let got = run(|cx| near.poll_connected(cx));
        assert_eq!(got.err().map(|error| error.kind()), ended);
        assert_eq!(near.is_connected(), ended.is_none());
        answering.join().unwrap();
    });
}

#[test]
fn a_task_is_connected_by_an_answer_in_text() {
    let answer = |mut far: VsockInnerStream| {
        far.write_all(b"OK 1\n").unwrap();
        Some(far)
    };
    connect(answer, None);
}

#[test]
fn a_task_is_connected_by_a_confirmation() {
    let answer = |mut far: VsockInnerStream| {
        assert_eq!(far.requested_port(), Some(5));
        far.confirm(1).unwrap();
        Some(far)
    };
    connect(answer, None);
}

#[test]
fn a_task_is_connected_by_a_confirmation_before_a_drop() {
    let answer = |mut far: VsockInnerStream| {
        assert_eq!(far.requested_port(), Some(5));
        far.confirm(1).unwrap();
        None
    };
    connect(answer, None);
}

#[test]
fn a_task_learns_of_a_refusal() {
    let refuse = |far| {
        drop(far);
        None
    };
    connect(refuse, Some(ErrorKind::ConnectionRefused));
}

#[test]
fn a_task_learns_of_a_wrong_answer() {
    let answer = |mut far: VsockInnerStream| {
        far.write_all(b"NO\n").unwrap();
        Some(far)
    };
    connect(answer, Some(ErrorKind::InvalidData));
}

#[test]
fn a_task_that_writes_before_it_is_connected_is_woken_then() {
    explore(|| {
        let (mut near, mut far) = pending(64);
        let answering = thread::spawn(move || {
            far.write_all(b"OK 1\n").unwrap();
            far
        });
        assert_eq!(run(|cx| near.poll_write(cx, &[1])).unwrap(), 1);
        drop(answering.join().unwrap());
    });
}

/// A connection to be accepted; its other end is of no interest.
fn connection() -> VsockInnerStream {
    pair(1).0
}

fn accept(backlog: &Backlog) -> Result<VsockInnerStream, PopError> {
    run(|cx| backlog.poll_pop(cx.waker()))
}

#[test]
fn each_of_two_tasks_that_accept_gets_its_connection() {
    explore(|| {
        let backlog = loom::sync::Arc::new(Backlog::new(2));
        let accepting = [(); 2].map(|()| {
            let backlog = loom::sync::Arc::clone(&backlog);
            thread::spawn(move || drop(accept(&backlog).unwrap()))
        });
        let connections = [connection(), connection()];
        for connection in connections {
            backlog.push(connection).unwrap();
        }
        for accepting in accepting {
            accepting.join().unwrap();
        }
    });
}

#[test]
fn a_dropped_future_takes_no_wake_up_from_another() {
    explore(|| {
        let backlog = loom::sync::Arc::new(Backlog::new(2));
        let (dropped, connection) = (Executor::new(), connection());
        let waker = Waker::from(Arc::clone(&dropped));
        assert!(backlog.poll_pop(&waker).is_pending());
        drop(waker);
        let accepting = {
            let backlog = loom::sync::Arc::clone(&backlog);
            thread::spawn(move || drop(accept(&backlog).unwrap()))
        };
        backlog.push(connection).unwrap();
        accepting.join().unwrap();
        assert_eq!(Arc::strong_count(&dropped), 1, "its waker is gone");
    });
}

#[test]
fn a_thread_and_a_task_accept_side_by_side() {
    explore(|| {
        let backlog = loom::sync::Arc::new(Backlog::new(2));
        let blocking = {
            let backlog = loom::sync::Arc::clone(&backlog);
            thread::spawn(move || drop(backlog.pop(None).unwrap()))
        };
        let pushing = {
            let backlog = loom::sync::Arc::clone(&backlog);
            let connections = [connection(), connection()];
            thread::spawn(move || {
                for connection in connections {
                    backlog.push(connection).unwrap();
                }
            })
        };
        drop(accept(&backlog).unwrap());
        blocking.join().unwrap();
        pushing.join().unwrap();
    });
}

/// A task that accepts ends so when this happens to the backlog.
fn end_accept(end: fn(&Backlog), error: PopError) {
    explore(move || {
        let backlog = loom::sync::Arc::new(Backlog::new(2));
        let ending = {
            let backlog = loom::sync::Arc::clone(&backlog);
            thread::spawn(move || end(&backlog))
        };
        assert_eq!(accept(&backlog).unwrap_err(), error);
        ending.join().unwrap();
    });
}

#[test]
fn a_task_that_accepts_learns_that_there_is_no_more_accepting() {
    end_accept(Backlog::close, PopError::Closed);
}

#[test]
fn a_task_that_accepts_is_cancelled() {
    end_accept(Backlog::cancel, PopError::Cancelled);
}

#[test]
fn a_cancellation_that_is_taken_back_ends_the_wait_of_a_task_that_accepts() {
    explore(|| {
        let backlog = loom::sync::Arc::new(Backlog::new(2));
        let executor = Executor::new();
        let waker = Waker::from(Arc::clone(&executor));
        assert!(backlog.poll_pop(&waker).is_pending());
        let cancelling = {
            let backlog = loom::sync::Arc::clone(&backlog);
            thread::spawn(move || {
                backlog.cancel();
                backlog.resume();
            })
        };
        let ended = executor.run(|cx| backlog.poll_pop(cx.waker()));
        assert_eq!(ended.unwrap_err(), PopError::Cancelled);
        cancelling.join().unwrap();
        assert!(backlog.poll_pop(&waker).is_pending(), "once");
    });
}
