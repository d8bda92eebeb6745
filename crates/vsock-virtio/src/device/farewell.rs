// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Stops a device whose guest continues to run.

use vm_memory::GuestMemory;
use vsock_proto::Tick;

use super::VsockDevice;

impl<M: GuestMemory> VsockDevice<M> {
    /// Begins to stop a device whose guest continues to run. This closes every connection.
    /// [`process`](Self::process) then sends the guest an RST for each connection that the guest
    /// knows about, as its buffers allow.
    ///
    /// [`Muxer::begin_shutdown`](vsock_muxer::Muxer::begin_shutdown) also says which data is lost.
    /// The caller decides how long to wait for a guest without buffers; [`reset`](Self::reset) ends
    /// the wait. A guest that has not yet acknowledged a [`transport_reset`](Self::transport_reset)
    /// gets no packet before it does.
    ///
    /// ```
    /// use vm_memory::GuestMemoryMmap;
    /// use vsock_virtio::{DeviceFault, Queues, Tick, VsockDevice};
    ///
    /// /// Begins to stop the device, and returns whether that is done already. If it is not,
    /// /// continue to call `process` after each kick until `owes_farewells` returns `false`
    /// /// or you have waited long enough.
    /// fn say_farewell(
    ///     device: &mut VsockDevice<GuestMemoryMmap>,
    ///     now: Tick,
    ///     mem: &GuestMemoryMmap,
    ///     queues: &mut Queues<'_>,
    /// ) -> Result<bool, DeviceFault> {
    ///     device.farewell(now);
    ///     let outcome = device.process(now, mem, queues)?;
    ///     if outcome.notify_rx {
    ///         // Interrupt the guest.
    ///     }
    ///     Ok(!device.owes_farewells())
    /// }
    /// ```
    pub fn farewell(&mut self, now: Tick) {
        self.muxer.begin_shutdown(now);
    }

    /// Returns whether RSTs of a [`farewell`](Self::farewell) still wait for the guest's buffers.
    #[must_use]
    pub fn owes_farewells(&self) -> bool {
        self.muxer.owes_resets()
    }
}
