// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The end of a device whose guest lives on.

use vm_memory::GuestMemory;
use vsock_proto::Tick;

use super::VsockDevice;

impl<M: GuestMemory> VsockDevice<M> {
    /// The device is about to stop, and its guest goes on: every connection is closed, and
    /// [`process`](Self::process) gives the guest an RST for each that it knows of, as its buffers allow.
    /// See [`Muxer::begin_shutdown`](vsock_muxer::Muxer::begin_shutdown), also for what is lost.
    ///
    /// How long to wait for a guest without buffers is the caller's decision; [`reset`](Self::reset) ends
    /// it. A guest that has yet to take notice of a [`transport_reset`](Self::transport_reset) gets no
    /// packet before it has.
    ///
    /// ```
    /// use vm_memory::GuestMemoryMmap;
    /// use vsock_virtio::{DeviceFault, Queues, Tick, VsockDevice};
    ///
    /// /// The beginning of a stop. Returns whether it is over: else `process` is called as
    /// /// ever, with
    /// /// each kick, until the device owes nothing or its owner has waited for long enough.
    /// fn say_farewell(
    ///     device: &mut VsockDevice<GuestMemoryMmap>,
    ///     now: Tick,
    ///     mem: &GuestMemoryMmap,
    ///     queues: &mut Queues<'_>,
    /// ) -> Result<bool, DeviceFault> {
    ///     device.farewell(now);
    ///     let outcome = device.process(now, mem, queues)?;
    ///     if outcome.notify_rx {
    ///         // The guest is interrupted.
    ///     }
    ///     Ok(!device.owes_farewells())
    /// }
    /// ```
    pub fn farewell(&mut self, now: Tick) {
        self.muxer.begin_shutdown(now);
    }

    /// Whether a [farewell](Self::farewell) has been said of which the guest does not have every RST.
    #[must_use]
    pub fn owes_farewells(&self) -> bool {
        self.muxer.owes_resets()
    }
}
