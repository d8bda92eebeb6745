// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::time::Duration;

use vm_memory::GuestMemory;
use vsock_backend_api::VsockVolatileStream;
use vsock_muxer::Muxer;

use crate::VsockDevice;
use crate::direct::DirectTypes;

/// Makes a [`VsockDevice`].
#[derive(Debug)]
pub struct VsockDeviceBuilder<M: GuestMemory> {
    pub(crate) muxer: Muxer,
    pub(crate) transport_features: u64,
    pub(crate) budget: usize,
    pub(crate) rx_delay: Duration,
    pub(crate) tx_delay: Duration,
    pub(crate) kick_delay: Duration,
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
            rx_delay: Duration::from_micros(500),
            tx_delay: Duration::from_millis(5),
            kick_delay: Duration::from_millis(1),
            direct: DirectTypes::new(),
        }
    }

    /// Streams of the type `S` copy to and from guest memory by themselves, with no buffer in between.
    ///
    /// They do where a piece of guest memory has at least `least` bytes; smaller pieces are gathered,
    /// and moved by one call of the stream. For a stream that takes many pieces in one call, `least` is
    /// 0. For one that takes them one by one, each with a system call, it is about 16 KiB: gathering
    /// 4 KiB buffers of a guest into one read costs less than a read for each of them.
    ///
    /// The type must show itself through
    /// [`VsockStream::as_any_mut`](vsock_backend_api::VsockStream::as_any_mut). What is not registered
    /// is always moved by a copy, in few calls. The streams of `vsock-inner` have the trait by its
    /// feature `vm-memory`.
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

    /// Bytes that one call of [`VsockDevice::process`] moves in each direction, roughly: default
    /// 512 KiB. A packet of the guest counts as 2 KiB if it is smaller, so that a call
    /// ends after 256 of them; a descriptor counts as 64 bytes, if those of a packet come to more.
    /// Every call moves something if it can: 0 counts as 1.
    #[must_use]
    pub const fn budget(mut self, bytes: usize) -> Self {
        self.budget = if bytes == 0 { 1 } else { bytes };
        self
    }

    /// How long the guest may be left without a notification of filled buffers while, of what it was
    /// notified of, it is known to have at least twice as much left to read: default 500 us. It makes one
    /// interrupt of many where a guest has many requests under way. Zero turns it off.
    ///
    /// The guest's own packets say what it has read; see [`Muxer::notification_may_wait`]. A first byte,
    /// an answer that the guest waits for, and whatever is no payload are never held back.
    #[must_use]
    pub const fn rx_notification_delay(mut self, delay: Duration) -> Self {
        self.rx_delay = delay;
        self
    }

    /// How long the guest may be left without a notification that its packets were taken: default
    /// 5 ms. Zero turns it off.
    ///
    /// It hears of its buffers that much later, or when a quarter of its ring is used. That is for a guest
    /// that streams to the host. One that waits for answers is notified at once; so is one that sends
    /// little, or that waits for its buffers, but for one time in hundreds.
    #[must_use]
    pub const fn tx_notification_delay(mut self, delay: Duration) -> Self {
        self.tx_delay = delay;
        self
    }

    /// How long packets of a guest that streams to the host may lie in the ring before the device looks at
    /// it: default 1 ms. Zero turns it off; without `VIRTIO_F_EVENT_IDX` it is off.
    ///
    /// The driver is asked to kick the device with the last packet of a batch, a quarter of its ring or half
    /// of [its window](vsock_proto::Config::buf_alloc) at most: fewer exits of the guest, and wake-ups of the
    /// VMM's thread and of the host's reader. That is for a guest that sends payload and nothing else, and
    /// has used 256 descriptors since it got an answer, or twice as many as before that, up to 4,096. Of every
    /// other the next packet is asked for; so it is of one whose batches are half full or less in that
    /// time, but for one in hundreds of its packets.
    #[must_use]
    pub const fn tx_kick_delay(mut self, delay: Duration) -> Self {
        self.kick_delay = delay;
        self
    }

    /// The device, not yet active.
    #[must_use]
    pub fn build(self) -> VsockDevice<M> {
        VsockDevice::new(self)
    }
}
