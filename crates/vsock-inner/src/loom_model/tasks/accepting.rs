// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Tasks that accept, concurrent with new connections, other tasks and threads, and closing.

use std::sync::Arc;
use std::task::{Poll, Wake, Waker};

use loom::thread;

use super::{Executor, run};
use crate::backlog::{Backlog, PopError};
use crate::loom_model::{explore, pair};
use crate::stream::VsockInnerStream;

/// A connection to be accepted. Its other end does not matter.
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

/// A waker that no other one of its task equals.
struct Renewed(Arc<Executor>);

impl Wake for Renewed {
    fn wake(self: Arc<Self>) {
        Arc::clone(&self.0).wake();
    }
}

#[test]
fn a_task_that_is_not_recognised_gets_its_connection_and_leaves_no_waker() {
    explore(|| {
        let backlog = loom::sync::Arc::new(Backlog::new(2));
        let (executor, connection) = (Executor::new(), connection());
        let pushing = {
            let backlog = loom::sync::Arc::clone(&backlog);
            thread::spawn(move || {
                backlog.cancel();
                backlog.resume();
                backlog.push(connection).unwrap();
            })
        };
        let accepted = executor.run(|_| {
            let waker = Waker::from(Arc::new(Renewed(Arc::clone(&executor))));
            match backlog.poll_pop(&waker) {
                // It can miss that its wait was cancelled, or hear of it if it still lasts.
                Poll::Ready(Err(PopError::Cancelled)) => {
                    waker.wake();
                    Poll::Pending
                }
                polled => polled,
            }
        });
        drop(accepted.unwrap());
        pushing.join().unwrap();
        backlog.close();
        assert_eq!(Arc::strong_count(&executor), 1, "a waker was leaked");
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
fn a_thread_and_a_task_accept_concurrently() {
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

/// Checks how a task that accepts ends when `end` is run on the backlog.
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
fn a_task_that_accepts_learns_that_the_backlog_is_closed() {
    end_accept(Backlog::close, PopError::Closed);
}

#[test]
fn a_task_that_accepts_is_cancelled() {
    end_accept(Backlog::cancel, PopError::Cancelled);
}

#[test]
fn a_resumed_cancellation_still_ends_the_wait_of_a_task_that_accepts() {
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
