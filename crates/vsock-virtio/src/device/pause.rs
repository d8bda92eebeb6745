// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A driver that is paused for a while, and that another driver may replace.

use vm_memory::GuestMemory;
use vsock_proto::Tick;

use super::{Phase, VsockDevice, set_up};
use crate::features::Features;
use crate::{ActivateError, QueueName, Queues};

impl<M: GuestMemory> VsockDevice<M> {
    /// Pauses for a driver that is paused: the device leaves its queues alone until
    /// [`resume`](Self::resume), and [`process`](Self::process) does nothing. If another driver
    /// takes over instead, [`reset`](Self::reset) the device and [`activate`](Self::activate) it.
    ///
    /// Connections stay open, and host clients wait. [`Muxer::pause`](vsock_muxer::Muxer::pause)
    /// describes how to exclude the time of the pause. A device that is not active is unchanged.
    pub fn pause(&mut self) {
        if self.is_active() {
            self.muxer.pause();
            self.phase = Phase::Paused;
        }
    }

    /// Continues with the driver where it was [paused](Self::pause), with these queues: the same
    /// ones, or others with the same set-up and the same positions.
    ///
    /// Call [`process`](Self::process) next. It notifies the guest of both queues, because a
    /// notification may have been lost in the pause. A device that was not paused is unchanged.
    ///
    /// # Errors
    ///
    /// A queue is unusable. The device stays paused.
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

    /// Closes every connection on the host. A driver that continues learns this from an RST for
    /// each connection that it knows about, and from `VIRTIO_VSOCK_EVENT_TRANSPORT_RESET` if it has
    /// an event queue. The event makes RSTs that are not sent yet unnecessary.
    ///
    /// Use this when you do not know whether the driver continues or has been replaced. If it has
    /// been replaced, [`reset`](Self::reset) forgets the RSTs and the event. A device that is
    /// neither active nor paused is unchanged.
    pub fn cut(&mut self, now: Tick) {
        if self.has_driver() {
            self.muxer.cut(now);
            self.events.owe();
        }
    }

    /// Checks the queues and sets how their notifications are suppressed.
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

    /// Whether a driver has activated the device and has not reset it since.
    pub(super) const fn has_driver(&self) -> bool {
        matches!(self.phase, Phase::Starting | Phase::Active | Phase::Paused)
    }
}
