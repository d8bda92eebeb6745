// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::time::Duration;

use vsock_proto::{GuestCid, SocketTypes};

/// What a simulated guest's kernel is like. The default is Linux 6.12 of 2026 with its usual sizes.
#[derive(Clone, Debug)]
pub struct GuestConfig {
    /// The guest's CID.
    pub cid: GuestCid,
    /// The socket types that the driver has negotiated.
    pub types: SocketTypes,
    /// Bytes of receive buffer of a new socket (`SO_VM_SOCKETS_BUFFER_SIZE`).
    pub buf_alloc: u32,
    /// How many receive buffers the driver keeps posted.
    pub rx_buffers: usize,
    /// Bytes of each of them, with the header: 44 leave no room for payload, fewer none for a
    /// packet.
    pub rx_buffer_bytes: usize,
    /// Packets that the transmit queue holds. As many replies may wait for it before the driver
    /// stops looking at what it has received.
    pub tx_packets: usize,
    /// Bytes that each received packet costs in addition to its payload. A kernel of 2026 resets a
    /// connection whose packets cost more than its buffer holds; 0 is an older one.
    pub packet_overhead: u32,
    /// Whether a packet of at most 128 bytes is added to the one before it, if that has room in its
    /// buffer and ends no message. Every Linux with a packet overhead does that.
    pub merges_small_packets: bool,
    /// Whether a sender never has more under way than its own receive buffer holds, whatever the
    /// peer grants.
    pub caps_credit: bool,
    /// Whether a reader that has left less than it waits for (`SO_RCVLOWAT`: nothing, at first)
    /// says so immediately. Older kernels only do when less than a packet of 64 KiB is left of the
    /// window, as far as the peer knows.
    pub updates_when_empty: bool,
    /// How long a connect waits for its answer.
    pub connect_timeout: Duration,
    /// How long a closed socket waits for the peer's RST before it sends one.
    pub close_timeout: Duration,
}

impl GuestConfig {
    /// Linux 6.1 as it came out: it counts bytes alone, and a reader is silent while there is room.
    #[must_use]
    pub fn linux_6_1() -> Self {
        Self {
            packet_overhead: 0,
            updates_when_empty: false,
            ..Self::default()
        }
    }
}

/// The CID of a guest whose configuration names no other.
const CID: u64 = 3;

impl Default for GuestConfig {
    fn default() -> Self {
        Self {
            cid: default_cid(),
            types: SocketTypes::ALL,
            buf_alloc: 256 * 1024,
            rx_buffers: 128,
            rx_buffer_bytes: 4096,
            tx_packets: 128,
            packet_overhead: 576,
            merges_small_packets: true,
            caps_credit: true,
            updates_when_empty: true,
            connect_timeout: Duration::from_secs(2),
            close_timeout: Duration::from_secs(8),
        }
    }
}

#[expect(
    clippy::expect_used,
    reason = "3 is a guest's CID, which the types cannot tell"
)]
fn default_cid() -> GuestCid {
    GuestCid::try_from(CID).expect("a CID that a guest may have")
}
