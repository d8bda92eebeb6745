// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The thread that starts the pumps of a backend.
//!
//! A program may forbid its device threads to start threads. This thread starts them instead, and
//! they inherit its confinement.

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::thread;

use super::pump::Task;
use crate::journal::say;
use crate::unix::closer;

/// A request to the thread.
enum Request {
    /// Run this function.
    First(Box<dyn FnOnce() + Send>),
    /// Start this pump.
    Start(Task),
}

/// A handle that sends requests to the thread. The thread ends after the handle is dropped.
#[derive(Debug)]
pub(super) struct Starter(Sender<Request>);

impl Starter {
    pub(super) fn new() -> io::Result<Self> {
        let (requests, requested) = channel();
        let builder = thread::Builder::new().name("vsock-starter".to_owned());
        builder.spawn(move || run(&requested))?;
        Ok(Self(requests))
    }

    /// Runs a function on the thread, and waits for its result.
    pub(super) fn first(
        &self,
        first: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> io::Result<()> {
        let ended =
            || io::Error::other("the thread that starts threads for passed descriptors panicked");
        let (report, done) = sync_channel(1);
        let first = move || {
            // The receiver exists: the caller waits for it.
            let _sent = report.send(first());
        };
        let asked = self.0.send(Request::First(Box::new(first)));
        asked.map_err(|_| ended())?;
        done.recv().unwrap_or_else(|_| Err(ended()))
    }

    /// Keeps the thread busy until the returned sender is dropped.
    #[cfg(test)]
    pub(super) fn hold(&self) -> Sender<()> {
        let (held, released) = channel();
        let wait = move || {
            // This returns an error once the sender is dropped.
            let _dropped = released.recv();
        };
        self.0.send(Request::First(Box::new(wait))).unwrap();
        held
    }

    /// Starts a pump, without waiting for it. The number of waiting tasks is bounded, because each
    /// has a place in the register. If the pump cannot be started, the device reads the end from
    /// its socket.
    pub(super) fn start(&self, task: Task) {
        let unsent = self.0.send(Request::Start(task)).err();
        if let Some(Request::Start(task)) = unsent.map(|unsent| unsent.0) {
            say!(
                task.journal(),
                Error,
                "the thread that starts threads for passed descriptors panicked"
            );
            closer::close(task.into_file());
        }
    }
}

fn run(requested: &Receiver<Request>) {
    for request in requested {
        match request {
            Request::First(first) => first(),
            Request::Start(task) => {
                if let Err(file) = task.start() {
                    closer::close(file);
                }
            }
        }
    }
}
