// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

/// What a device has counted since it was made. What happened to connections, the muxer counts.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct DeviceCounters {
    /// Chains of the transmit queue that were no packet: too short for a header or for what it
    /// promises, longer than the limit, or outside of guest memory. They went back unused.
    pub malformed_packets: u64,
    /// Chains of the receive queue and of the event queue that could not be used, and went back with
    /// a length of 0: too small, read-only, or outside of guest memory.
    pub unusable_buffers: u64,
    /// Transport resets that were published to the guest.
    pub transport_resets: u64,
}
