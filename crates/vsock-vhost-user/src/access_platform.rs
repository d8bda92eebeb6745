// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use vhost::vhost_user::message::VhostUserProtocolFeatures;

/// `VIRTIO_F_ACCESS_PLATFORM` (virtio 1.3, 6).
const F_ACCESS_PLATFORM: u64 = 1 << 33;

/// Whether the device offers `VIRTIO_F_ACCESS_PLATFORM`. With this feature, the driver uses the
/// addresses that the platform assigns for a device, not guest-physical addresses.
///
/// A guest with encrypted memory (AMD SEV, Intel TDX) needs it: its driver copies the data for the
/// device to *bounce buffers*, in pages that the guest shares with the host. Their addresses are
/// plain guest addresses, so the device has nothing to translate.
///
/// A guest behind a virtual IOMMU is different: the device would have to translate its addresses,
/// with a table from `IOTLB_MSG` requests of the VMM. The device has no such table and refuses the
/// first of these requests, which ends that VMM's connection. QEMU sends them if, and only if, the
/// machine has a virtual IOMMU (`-device intel-iommu`) and the device has `iommu_platform=on`.
///
/// QEMU does not need the device's offer. It offers the feature to its guest itself if the device
/// has `iommu_platform=on` (the default in machines with `confidential-guest-support`). It hides
/// the bit from the device unless there is a virtual IOMMU. Other VMMs may need the offer. QEMU
/// refuses a device that offers the bit without `VHOST_USER_PROTOCOL_F_BACKEND_REQ` ("IOMMU support
/// requires reply-ack and backend-req protocol features"). So the device then offers that too; it
/// accepts the channel and sends nothing on it.
///
/// # Examples
///
/// ```
/// use vsock_vhost_user::{AccessPlatform, VhostUserVsockBuilder};
///
/// let builder = VhostUserVsockBuilder::new(3, "/run/vm3/vhost.sock");
/// let builder = builder.access_platform(AccessPlatform::Offered);
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum AccessPlatform {
    /// The device offers the feature, and the channel for requests of the back-end.
    Offered,
    /// The device does not offer the feature, and refuses a VMM that requests it.
    #[default]
    NotOffered,
}

impl AccessPlatform {
    pub(crate) const fn features(self) -> u64 {
        match self {
            Self::Offered => F_ACCESS_PLATFORM,
            Self::NotOffered => 0,
        }
    }

    pub(crate) const fn protocol_features(self) -> VhostUserProtocolFeatures {
        match self {
            Self::Offered => VhostUserProtocolFeatures::BACKEND_REQ,
            Self::NotOffered => VhostUserProtocolFeatures::empty(),
        }
    }
}
