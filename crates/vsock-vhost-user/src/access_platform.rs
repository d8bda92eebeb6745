// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use vhost::vhost_user::message::VhostUserProtocolFeatures;

/// `VIRTIO_F_ACCESS_PLATFORM` (virtio 1.3, 6).
const F_ACCESS_PLATFORM: u64 = 1 << 33;

/// Whether `VIRTIO_F_ACCESS_PLATFORM` is on offer: the driver hands out addresses as the platform
/// gives them to a device, not those of its memory.
///
/// A guest with encrypted memory (AMD SEV, Intel TDX) needs it: its driver puts what the device may
/// see into *bounce buffers*, in pages that the guest shares with the host. Their addresses are
/// plain guest addresses, so the device has nothing to translate.
///
/// A guest behind a virtual IOMMU is another matter: its addresses would have to be translated, by
/// `IOTLB_MSG` requests of the VMM. The device has no such table and refuses the first of them,
/// which ends that VMM's connection. QEMU sends them if, and only if, the machine has a virtual
/// IOMMU (`-device intel-iommu`) and the device `iommu_platform=on`.
///
/// QEMU offers the feature to its guest by itself, where the device has `iommu_platform=on` (it is
/// the default in machines with `confidential-guest-support`), and takes the bit out of what it
/// tells the device where there is no virtual IOMMU: it needs no offer. Other VMMs may. QEMU
/// refuses a device that offers the bit without `VHOST_USER_PROTOCOL_F_BACKEND_REQ` ("IOMMU support
/// requires reply-ack and backend-req protocol features"), so that comes with it; the device takes
/// the channel and sends nothing on it.
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
    /// It is on offer, with the channel for requests of the device.
    Offered,
    /// It is not. A VMM that asks for it is refused.
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
