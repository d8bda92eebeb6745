// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::time::Duration;

use vm_memory::GuestMemory;
use vsock_backend_api::VsockVolatileStream;
use vsock_muxer::Muxer;

use crate::direct::DirectTypes;

/// Makes a [`VsockDevice`](crate::VsockDevice).
#[derive(Debug)]
pub struct VsockDeviceBuilder<M: GuestMemory> {
    pub(crate) muxer: Muxer,
    pub(crate) transport_features: u64,
    pub(crate) budget: usize,
    pub(crate) poll_budget: Duration,
    pub(crate) direct: DirectTypes<M>,
}

impl<M: GuestMemory> VsockDeviceBuilder<M> {
    /// A device for the guest of this muxer, with its backends.
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

    /// Streams of the type `S` copy to and from guest memory by themselves, with no buffer in
    /// between.
    ///
    /// They do where a piece of guest memory has at least `least` bytes; smaller pieces are
    /// gathered, and moved by one call of the stream. For a stream that takes many pieces in one
    /// call, `least` is
    /// 0. For one that takes them one by one, each with a system call, it is about 16 KiB:
    ///    gathering
    /// 4 KiB buffers of a guest into one read costs less than a read for each of them.
    ///
    /// The type must show itself through
    /// [`VsockStream::as_any_mut`](vsock_backend_api::VsockStream::as_any_mut). What is not
    /// registered is always moved by a copy, in few calls. The streams of `vsock-inner` have the
    /// trait by its feature `vm-memory`.
    #[must_use]
    pub fn direct<S>(mut self, least: usize) -> Self
    where
        S: VsockVolatileStream + 'static,
    {
        self.direct.add::<S>(least);
        self
    }

    /// Feature bits that the transport around the device implements, such as
    /// `VIRTIO_F_ACCESS_PLATFORM` with an IOMMU in the memory: none by default.
    #[must_use]
    pub const fn transport_features(mut self, bits: u64) -> Self {
        self.transport_features = bits;
        self
    }

    /// Bytes that one call of [`VsockDevice::process`](crate::VsockDevice::process) moves in each
    /// direction, roughly: default 512 KiB. A packet of the guest counts as 2 KiB if it is smaller,
    /// so that a call ends after 256 of them; a descriptor counts as 64 bytes, if those of a packet
    /// come to more. Every call moves something if it can: 0 counts as 1.
    ///
    /// A call also ends after 128 KiB of the guest's payload if something waits to be sent to the
    /// guest, so that the guest gets credit before all of its window is taken.
    #[must_use]
    pub const fn budget(mut self, bytes: usize) -> Self {
        self.budget = if bytes == 0 { 1 } else { bytes };
        self
    }

    /// How long the device polls before it gives up: default 30 us. Zero turns polling off.
    ///
    /// If the device expects work within that time, it asks its caller to
    /// [poll](crate::NextCall::Poll) instead of sleeping, and asks the driver for no kicks: a
    /// packet that arrives then costs no exit of the guest and no wake-up of the thread. The device
    /// learns from the guest's pauses what to expect, and polls rarely if polls seem to keep the
    /// guest off the processor.
    ///
    /// While it polls and the guest goes on sending, the guest is told once that several packets
    /// were taken: when they are a quarter of its queue, after 2 ms, or when it has paused for this
    /// time. A filled buffer is told immediately, always.
    #[must_use]
    pub const fn poll_budget(mut self, budget: Duration) -> Self {
        self.poll_budget = budget;
        self
    }
}
