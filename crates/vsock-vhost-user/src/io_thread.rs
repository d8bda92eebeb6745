// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The device thread, which moves bytes. Only this thread reads and writes streams. It waits for
//! nothing except the event loop of the `MuxerDriver`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use vsock_epoll::DriverEvents;

use crate::error::VhostUserError;
use crate::inspector::{INSPECTION, Question};
use crate::shared::Shared;
use crate::stopper::{StopOnDrop, StopStage, Stopper};

/// How long the guest has to receive its RSTs when the device stops.
const GRACE: Duration = Duration::from_millis(100);

pub(crate) struct IoThread {
    shared: Arc<Shared>,
    events: DriverEvents,
    stopper: Stopper,
}

impl IoThread {
    pub(crate) fn new(shared: Arc<Shared>, stopper: Stopper) -> Self {
        let events = shared.worker().events();
        Self {
            shared,
            events,
            stopper,
        }
    }

    /// Moves bytes until the device is stopped, and then resets the guest's connections.
    pub(crate) fn run(mut self) -> Result<(), VhostUserError> {
        // However this thread ends, the front-end thread must not wait for it.
        let _end = StopOnDrop {
            stopper: self.stopper.clone(),
            stage: StopStage::Answering,
        };
        while !self.stopper.is_stopped() {
            self.step(None)?;
        }
        // The guest may have no buffers for all RSTs, or none at all, so this has a time limit.
        let begun = Instant::now();
        self.shared.worker().begin_farewell(&mut self.events);
        while let Some(left) = GRACE.checked_sub(begun.elapsed()) {
            if !self.owes_farewells() {
                break;
            }
            self.step(Some(left))?;
        }
        Ok(())
    }

    fn owes_farewells(&self) -> bool {
        self.shared.worker().owes_farewells()
    }

    fn step(&mut self, timeout: Option<Duration>) -> Result<(), VhostUserError> {
        let waited = self.events.wait(timeout);
        waited.map_err(|error| VhostUserError::Resources(error.into()))?;
        self.shared.worker().step(&mut self.events);
        // Bytes first, then a question.
        if self.events.own().any(|number| number == INSPECTION) {
            self.answer_one();
        }
        Ok(())
    }

    /// Answers the next question, or a part of it. The rest has to wait until the device has moved
    /// bytes again.
    fn answer_one(&mut self) {
        let Some(question) = self.shared.inbox.take() else {
            return;
        };
        match question {
            Question::Report(reply) => {
                let report = self.shared.worker().report();
                reply.answer(report);
            }
            Question::List(mut listing) => {
                let next = self
                    .shared
                    .worker()
                    .list(listing.position, &mut listing.list);
                match next {
                    Some(position) => {
                        listing.position = position;
                        self.shared.inbox.put_back(Question::List(listing));
                    }
                    None => listing.reply.answer(listing.list),
                }
            }
            Question::Reset(id, reply) => {
                let found = self.shared.worker().reset(id, &mut self.events);
                reply.answer(found);
            }
            Question::Capture(tap, reply) => {
                let before = self.shared.worker().set_tap(Some(tap));
                // Drop the tap without the lock, because that may run foreign code.
                drop(before);
                reply.answer(());
            }
        }
    }
}

impl Drop for IoThread {
    fn drop(&mut self) {
        self.shared.inbox.close();
    }
}
