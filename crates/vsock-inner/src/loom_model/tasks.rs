// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Tasks that wait, concurrent with what they wait for and with everything else that can happen to
//! a waker.

mod accepting;
mod cancelling;
mod connecting;
mod moving;
mod wakers;

use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use loom::sync::{Condvar, Mutex};
use loom::thread::{self, ThreadId};

use crate::reader::VsockInnerReader;

/// A thread that runs one task. A lost wake-up is a deadlock.
#[derive(Debug, Default)]
struct Executor {
    /// By which thread.
    woken: Mutex<Option<ThreadId>>,
    changed: Condvar,
}

impl Wake for Executor {
    fn wake(self: Arc<Self>) {
        *self.woken.lock().unwrap() = Some(thread::current().id());
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
            while woken.is_none() {
                woken = self.changed.wait(woken).unwrap();
            }
            let by = woken.take();
            drop(woken);
            if by == Some(thread::current().id()) {
                thread::yield_now(); // it wants to be polled again, after another thread has run
            }
        }
    }

    fn is_woken(&self) -> bool {
        self.woken.lock().unwrap().is_some()
    }
}

fn run<T>(task: impl FnMut(&mut Context<'_>) -> Poll<T>) -> T {
    Executor::new().run(task)
}

/// Polls once. If it is pending, leaves a waker and drops the future.
fn poll_once(executor: &Arc<Executor>, reader: &mut VsockInnerReader) -> Poll<usize> {
    let waker = Waker::from(Arc::clone(executor));
    let polled = reader.poll_read(&mut Context::from_waker(&waker), &mut [0; 4]);
    polled.map(Result::unwrap)
}
