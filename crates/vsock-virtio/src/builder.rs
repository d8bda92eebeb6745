// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::time::Duration;

use vm_memory::GuestMemory;
use vsock_backend_api::VsockVolatileStream;
use vsock_muxer::Muxer;

use crate::direct::DirectTypes;

/// A builder of a [`VsockDevice`](crate::VsockDevice).
#[derive(Debug)]
pub struct VsockDeviceBuilder<M: GuestMemory> {
    pub(crate) muxer: Muxer,
    pub(crate) transport_features: u64,
    pub(crate) budget: usize,
    pub(crate) poll_budget: Duration,
    pub(crate) direct: DirectTypes<M>,
}

impl<M: GuestMemory> VsockDeviceBuilder<M> {
    /// Creates a builder of a device for this muxer's guest, with the muxer's backends.
    #[must_use]
    pub const fn new(muxer: Muxer) -> Self {
        Self {
            muxer,
            transport_features: 0,
            budget: 512 * 1024,
            poll_budget: Duration::from_micros(30),
            direct: DirectTypes::new(),
        }
    }

    /// Lets streams of type `S` copy to and from guest memory directly, without an intermediate
    /// buffer.
    ///
    /// The device uses this for pieces of guest memory of at least `least` bytes. It gathers
    /// smaller pieces in a buffer and moves them with one call of the stream. Pass 0 for a stream
    /// that takes many pieces in one call. Pass about 16 KiB for a stream that needs a system call
    /// for each piece: one read into a gathering buffer then costs less than a read for each of
    /// the guest's 4 KiB buffers.
    ///
    /// The type must implement
    /// [`VsockStream::as_any_mut`](vsock_backend_api::VsockStream::as_any_mut). Streams of other
    /// types always go through a buffer. The streams of `vsock-inner` implement
    /// [`VsockVolatileStream`] if its feature `vm-memory` is enabled.
    #[must_use]
    pub fn direct<S>(mut self, least: usize) -> Self
    where
        S: VsockVolatileStream + 'static,
    {
        self.direct.add::<S>(least);
        self
    }

    /// Sets the feature bits that the transport around the device implements, such as
    /// `VIRTIO_F_ACCESS_PLATFORM` for memory with an IOMMU. The default is none.
    #[must_use]
    pub const fn transport_features(mut self, bits: u64) -> Self {
        self.transport_features = bits;
        self
    }

    /// Sets roughly how many bytes one call of
    /// [`VsockDevice::process`](crate::VsockDevice::process) moves in each direction. The default
    /// is 512 KiB.
    ///
    /// A packet from the guest counts as at least 2 KiB, and as at least 64 bytes for each of its
    /// descriptors. By default, a call thus takes at most 256 small packets. A call always moves
    /// something if it can: 0 counts as 1.
    ///
    /// A call also ends after 128 KiB of the guest's payload if a packet for the guest is waiting,
    /// so that the guest gets credit before all of its window is taken.
    #[must_use]
    pub const fn budget(mut self, bytes: usize) -> Self {
        self.budget = if bytes == 0 { 1 } else { bytes };
        self
    }

    /// Sets how long the device polls before it gives up. The default is 30 us; zero turns polling
    /// off.
    ///
    /// If the device expects work within this time, it asks its caller to
    /// [poll](crate::NextCall::Poll) instead of sleeping, and suppresses kicks. A packet that
    /// arrives meanwhile costs neither a VM exit nor a wake-up of the thread. The device learns
    /// from the guest's pauses what to expect, and polls less if polling seems to keep the guest
    /// off the processor.
    ///
    /// While the device polls and the guest continues to send, one interrupt reports several taken
    /// packets. It is due when they fill a quarter of the queue, when 2 ms have passed, or when the
    /// guest has paused for this time. The device always reports a filled buffer immediately.
    #[must_use]
    pub const fn poll_budget(mut self, budget: Duration) -> Self {
        self.poll_budget = budget;
        self
    }
}
