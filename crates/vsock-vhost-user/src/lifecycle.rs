// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Starts, pauses and resets the virtio device with its drivers, as the [session](crate::session)
//! decides.
//!
//! While no driver is served, the guest's clock stops, so that no timeout of a connection passes.
//! The device thus never sees host time: every method converts its argument first.

use std::sync::Arc;

use vsock_muxer::{Action, Driven, Readiness, Token};
use vsock_proto::Tick;
use vsock_virtio::{ActivateError, FeatureError, Outcome, Queues, VsockDevice};

use crate::guest_clock::GuestClock;
use crate::journal::{Journal, say};
use crate::memory::MappedMemory;
use crate::session::{Effect, Start};

/// Why a driver cannot be served.
#[derive(Debug, thiserror::Error)]
enum Unserved {
    #[error(transparent)]
    Features(#[from] FeatureError),
    #[error(transparent)]
    Queues(#[from] ActivateError),
}

pub(crate) struct Lifecycle {
    device: VsockDevice<MappedMemory>,
    clock: GuestClock,
    journal: Arc<Journal>,
}

impl Lifecycle {
    pub(crate) fn new(device: VsockDevice<MappedMemory>, journal: Arc<Journal>) -> Self {
        Self {
            device,
            clock: GuestClock::default(),
            journal,
        }
    }

    pub(crate) const fn device(&self) -> &VsockDevice<MappedMemory> {
        &self.device
    }

    pub(crate) const fn device_mut(&mut self) -> &mut VsockDevice<MappedMemory> {
        &mut self.device
    }

    /// Converts host time to guest time.
    pub(crate) fn guest_time(&self, now: Tick) -> Tick {
        self.clock.at(now)
    }

    /// Detaches the device from its rings, and closes the connections if the effect requires it.
    pub(crate) fn interrupt(&mut self, now: Tick, effect: Effect) {
        if effect == Effect::Nothing {
            return;
        }
        self.device.pause();
        self.clock.stop(now);
        // Cut after the pause, at the guest time at which the clock has stopped.
        if effect == Effect::Cut {
            self.device.cut(self.clock.at(now));
        }
        say!(self.journal, Debug, "the driver's queues are stopped");
    }

    /// Starts to serve running rings. Returns whether the device can serve them.
    pub(crate) fn start(
        &mut self,
        now: Tick,
        start: Start,
        features: u64,
        mem: &MappedMemory,
        queues: &mut Queues<'_>,
    ) -> bool {
        self.clock.run(now);
        let now = self.clock.at(now);
        let started = match start {
            Start::GoOn | Start::Cut => self.device.resume(mem, queues).map_err(Unserved::from),
            // A new driver, or one whose connections did not survive: nothing of the last one
            // may remain in the device.
            Start::Reset {
                owes_transport_reset,
            } => {
                self.device.reset(now);
                let activated = self.activate(now, features, mem, queues);
                if owes_transport_reset {
                    self.device.transport_reset(now);
                }
                activated
            }
        };
        match started {
            Ok(()) => {
                let what = match start {
                    Start::GoOn => "continues",
                    Start::Cut => "continues without its connections",
                    Start::Reset { .. } => "is up",
                };
                say!(
                    self.journal,
                    Debug,
                    "the driver {what}, features {features:#x}"
                );
                true
            }
            // The queues are unusable. Without a reset, the device would stay paused or half
            // started.
            Err(error) => {
                self.device.reset(now);
                say!(self.journal, Error, "cannot serve the driver: {error}");
                false
            }
        }
    }

    /// Moves bytes between running queues and the host's streams. Returns `None` if the queues are
    /// broken.
    pub(crate) fn process(
        &mut self,
        now: Tick,
        mem: &MappedMemory,
        queues: &mut Queues<'_>,
    ) -> Option<Outcome> {
        match self.device.process(self.clock.at(now), mem, queues) {
            Ok(outcome) => Some(outcome),
            Err(fault) => {
                say!(
                    self.journal,
                    Error,
                    "the queues are broken; the driver must reset the device: {fault}"
                );
                None
            }
        }
    }

    /// Prepares to stop the device while its guest continues to run.
    pub(crate) fn farewell(&mut self, now: Tick) {
        self.device.farewell(self.clock.at(now));
    }

    fn activate(
        &mut self,
        now: Tick,
        features: u64,
        mem: &MappedMemory,
        queues: &mut Queues<'_>,
    ) -> Result<(), Unserved> {
        self.device.ack_features(features)?;
        self.device.activate(now, mem, queues)?;
        Ok(())
    }
}

impl Driven for Lifecycle {
    fn on_event(&mut self, now: Tick, token: Token, ready: Readiness) {
        self.device.on_event(self.clock.at(now), token, ready);
    }

    fn on_timeout(&mut self, now: Tick) {
        self.device.on_timeout(self.clock.at(now));
    }

    fn next_action(&mut self) -> Option<Action> {
        self.device.next_action()
    }

    fn deadline(&self) -> Option<Tick> {
        self.clock.when(self.device.deadline()?)
    }
}
