// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The thread of a backend that starts the pumps.
//!
//! A program may confine the device's thread so that it can start no other. What the program does
//! first on this thread instead, those that it starts inherit.

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::thread;

use super::pump::Task;
use crate::unix::closer;

/// What the thread is asked to do.
enum Request {
    First(Box<dyn FnOnce() + Send>),
    Start(Task),
}

/// Asks the thread, which ends after this is dropped.
#[derive(Debug)]
pub(super) struct Starter(Sender<Request>);

impl Starter {
    pub(super) fn new() -> io::Result<Self> {
        let (requests, requested) = channel();
        let builder = thread::Builder::new().name("vsock-starter".to_owned());
        builder.spawn(move || run(&requested))?;
        Ok(Self(requests))
    }

    /// Does this on the thread, and waits for it.
    pub(super) fn first(
        &self,
        first: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> io::Result<()> {
        let ended = || io::Error::other("the thread that starts others has panicked");
        let (tell, done) = sync_channel(1);
        let first = move || {
            // The one that waits for it is there.
            let _told = tell.send(first());
        };
        let asked = self.0.send(Request::First(Box::new(first)));
        asked.map_err(|_| ended())?;
        done.recv().unwrap_or_else(|_| Err(ended()))
    }

    /// Starts a pump, without waiting for it. There is a bound for those that wait: each has its
    /// place in the register. If it cannot be started, the device's socket reads the end.
    pub(super) fn start(&self, task: Task) {
        let unsent = self.0.send(Request::Start(task)).err();
        if let Some(Request::Start(task)) = unsent.map(|unsent| unsent.0) {
            log::error!("the thread that starts those of passed descriptors has panicked");
            closer::close(task.into_file());
        }
    }
}

fn run(requested: &Receiver<Request>) {
    for request in requested {
        match request {
            Request::First(first) => first(),
            Request::Start(task) => {
                if let Err((file, error)) = task.start() {
                    log::debug!("cannot start the thread of a passed descriptor: {error}");
                    closer::close(file);
                }
            }
        }
    }
}
