// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

/// What a muxer has counted since it was made.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Counters {
    /// Packets that came from the guest.
    pub packets_from_guest: u64,
    /// Packets that were put into buffers of the guest.
    pub packets_to_guest: u64,
    /// Bytes of payload that came from the guest.
    pub bytes_from_guest: u64,
    /// Bytes of payload that were put into buffers of the guest.
    pub bytes_to_guest: u64,
}
