// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The virtio device that is offered over vhost-user.

use std::time::Duration;

use vhost::vhost_user::VhostUserVirtioFeatures;
use vsock_inner::VsockInnerStream;
use vsock_muxer::Muxer;
use vsock_sockets::{TcpVsockStream, UnixVsockStream};
use vsock_virtio::VsockDevice;

use crate::access_platform::AccessPlatform;
use crate::memory::MappedMemory;

/// Creates the virtio device around a muxer. It copies directly between these types of stream and
/// guest memory.
pub(crate) fn virtio_device(
    muxer: Muxer,
    access_platform: AccessPlatform,
    poll_budget: Duration,
) -> VsockDevice<MappedMemory> {
    VsockDevice::builder(muxer)
        .transport_features(transport_features(access_platform))
        .direct::<VsockInnerStream>(0)
        .direct::<UnixVsockStream>(0)
        .direct::<TcpVsockStream>(0)
        .poll_budget(poll_budget)
        .build()
}

/// The feature bits that vhost-user adds to those of the device.
const fn transport_features(access_platform: AccessPlatform) -> u64 {
    let vhost_user =
        VhostUserVirtioFeatures::PROTOCOL_FEATURES.union(VhostUserVirtioFeatures::LOG_ALL);
    vhost_user.bits() | access_platform.features()
}
