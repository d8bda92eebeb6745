// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The life of the virtio device between two visits of a driver: started by its first look at queues that run,
//! broken by queues that cannot be used, reset when they are taken back.

use std::sync::Arc;

use vsock_proto::Tick;
use vsock_virtio::{Outcome, Queues, VsockDevice};

use crate::journal::{Journal, say};
use crate::memory::MappedMemory;

/// Where the device stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// The driver has not started the queues, or has stopped them.
    Stopped,
    Running,
    /// The queues cannot be used. Nothing helps until the driver stops them.
    Broken,
}

pub(crate) struct Lifecycle {
    pub(crate) device: VsockDevice<MappedMemory>,
    journal: Arc<Journal>,
    state: State,
    /// What the driver accepts, from the next start of the queues on.
    features: u64,
}

impl Lifecycle {
    pub(crate) fn new(device: VsockDevice<MappedMemory>, journal: Arc<Journal>) -> Self {
        Self {
            device,
            journal,
            state: State::Stopped,
            features: 0,
        }
    }

    /// Takes what the driver has accepted of what was offered.
    pub(crate) fn accept_features(&mut self, features: u64) {
        self.features = features;
    }

    /// Moves what can be moved between queues that run and the host's streams.
    pub(crate) fn process(
        &mut self,
        now: Tick,
        mem: &MappedMemory,
        queues: &mut Queues<'_>,
    ) -> Outcome {
        if self.state == State::Stopped {
            self.state = if self.start(now, mem, queues) {
                State::Running
            } else {
                State::Broken
            };
        }
        if self.state == State::Broken {
            return Outcome::default();
        }
        match self.device.process(now, mem, queues) {
            Ok(outcome) => outcome,
            Err(fault) => {
                say!(
                    self.journal,
                    Error,
                    "the queues are broken, the driver must reset the device: {fault}"
                );
                self.state = State::Broken;
                Outcome::default()
            }
        }
    }

    /// The driver has taken its queues back.
    pub(crate) fn stop(&mut self, now: Tick) {
        if self.state != State::Stopped {
            self.device.reset(now);
            self.state = State::Stopped;
        }
    }

    /// Whether the guest is yet to learn of the end of connections, and can.
    pub(crate) fn owes_farewells(&self) -> bool {
        self.state == State::Running && self.device.owes_farewells()
    }

    fn start(&mut self, now: Tick, mem: &MappedMemory, queues: &mut Queues<'_>) -> bool {
        if let Err(error) = self.device.ack_features(self.features) {
            say!(self.journal, Error, "cannot serve the driver: {error}");
            return false;
        }
        if let Err(error) = self.device.activate(now, mem, queues) {
            say!(self.journal, Error, "cannot serve the driver: {error}");
            return false;
        }
        say!(
            self.journal,
            Debug,
            "the driver is up, features {features:#x}",
            features = self.features
        );
        true
    }
}
