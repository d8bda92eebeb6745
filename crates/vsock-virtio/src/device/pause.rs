// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A driver that stands still for a while, and may turn out to have been another one.

use vm_memory::GuestMemory;
use vsock_proto::Tick;

use super::{Phase, VsockDevice, set_up};
use crate::features::Features;
use crate::{ActivateError, QueueName, Queues};

impl<M: GuestMemory> VsockDevice<M> {
    /// The driver stands still: the device leaves its queues alone until [`resume`](Self::resume),
    /// and [`process`](Self::process) does nothing. If another driver comes instead,
    /// [`reset`](Self::reset) the device and [`activate`](Self::activate) it.
    ///
    /// Connections stay as they are, and host clients wait; see
    /// [`Muxer::pause`](vsock_muxer::Muxer::pause), also for what the caller does with the time of
    /// the pause. A device that is not active stays as it is.
    pub fn pause(&mut self) {
        if self.is_active() {
            self.muxer.pause();
            self.phase = Phase::Paused;
        }
    }

    /// The driver goes on where it was [paused](Self::pause), with these queues: the same ones, or
    /// others that are set up in the same way and stand where the first ones stood.
    ///
    /// Call [`process`](Self::process) next. It notifies the guest of both queues, because a
    /// notification may have been lost in the pause. A device that was not paused stays as it is.
    ///
    /// # Errors
    ///
    /// A queue is unusable. The device is paused as before.
    pub fn resume(&mut self, mem: &M, queues: &mut Queues<'_>) -> Result<(), ActivateError> {
        if self.phase != Phase::Paused {
            return Ok(());
        }
        self.set_up_all(self.features, mem, queues)?;
        self.notifications.restart();
        self.phase = Phase::Starting;
        self.muxer.resume();
        Ok(())
    }

    /// Every connection is closed on the host, and the driver learns of it, if it goes on: by an
    /// RST for each that it knows of, and by `VIRTIO_VSOCK_EVENT_TRANSPORT_RESET`, if it has an
    /// event queue. The event makes the RSTs that are not sent yet unnecessary.
    ///
    /// For a device of which it is not known whether its driver goes on or was replaced: in the
    /// latter case [`reset`](Self::reset) forgets both. A device that is neither active nor paused
    /// stays as it is.
    pub fn cut(&mut self, now: Tick) {
        if self.has_driver() {
            self.muxer.cut(now);
            self.events.owe();
        }
    }

    /// Checks the queues and tells them how notifications are suppressed.
    pub(super) fn set_up_all(
        &self,
        features: Features,
        mem: &M,
        queues: &mut Queues<'_>,
    ) -> Result<(), ActivateError> {
        let event_idx = features.event_idx();
        set_up(mem, queues.rx, QueueName::Rx, event_idx)?;
        set_up(mem, queues.tx, QueueName::Tx, event_idx)?;
        if let Some(event) = queues.event.as_deref_mut() {
            set_up(mem, event, QueueName::Event, event_idx)?;
        }
        Ok(())
    }

    /// Whether a driver was up, and has not reset the device since.
    pub(super) const fn has_driver(&self) -> bool {
        matches!(self.phase, Phase::Starting | Phase::Active | Phase::Paused)
    }
}
