// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

/// What of a muxer outlives a snapshot or a migration: plain numbers, for the device to put into its
/// own format.
///
/// Connections do not. Their host ends are streams of this process, whose other ends may be gone,
/// or have gone on, by the time of the restore; and the guest's window and the stream's bytes would
/// have to be of one moment. So a restored device tells its guest `VIRTIO_VSOCK_EVENT_TRANSPORT_RESET`
/// (virtio 1.3, 5.10.6.7), upon which the guest resets its connections and keeps its listeners.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct MuxerState {
    /// The host port that is tried next: a restored guest does not see the ports of connections that
    /// it may still remember.
    pub next_host_port: u32,
    /// Connections that there were, and that the guest loses by the restore.
    pub connections: u64,
}
