// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use vsock_muxer::MuxerState;

/// What must be kept of a device, beside its queues, to go on after a snapshot or a migration.
///
/// The state of the queues is the VMM's: `virtio_queue::Queue::state`. The device holds no chain
/// between two calls, so that state is complete. Connections do not survive: their host ends are
/// elsewhere. [`VsockDevice::restore`](crate::VsockDevice::restore) tells the guest.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DeviceState {
    /// The features that the driver had accepted.
    pub acked_features: u64,
    /// Whether the device was active.
    pub active: bool,
    /// What outlives a snapshot of its muxer.
    pub muxer: MuxerState,
}
