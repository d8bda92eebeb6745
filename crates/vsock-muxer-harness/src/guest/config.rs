// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::time::Duration;

use vsock_proto::{GuestCid, SocketTypes};

/// The properties of a simulated guest's kernel. The default is Linux 6.12 as of 2026 with its
/// default sizes.
#[derive(Clone, Debug)]
pub struct GuestConfig {
    /// The guest's CID. Default: 3.
    pub cid: GuestCid,
    /// The socket types that the driver has negotiated. Default: all.
    pub types: SocketTypes,
    /// The receive buffer of a new socket in bytes (`SO_VM_SOCKETS_BUFFER_SIZE`).
    /// Default: 256 KiB.
    pub buf_alloc: u32,
    /// How many receive buffers the driver provides. Default: 128.
    pub rx_buffers: usize,
    /// The size of each receive buffer in bytes, including the header. With 44 bytes there is no
    /// room for payload; with fewer, not even for a header. Default: 4096.
    pub rx_buffer_bytes: usize,
    /// The size of the transmit queue in packets. If this many replies wait for it, the driver
    /// stops handling received packets. Default: 128.
    pub tx_packets: usize,
    /// The cost of each received packet in bytes, in addition to its payload. A kernel of 2026
    /// resets a connection whose packets cost more than its buffer holds; 0 simulates an older one.
    /// Default: 576.
    pub packet_overhead: u32,
    /// Whether a packet of at most 128 bytes is merged into the previous one, if that has room in
    /// its buffer and does not end a message. Every Linux with a packet overhead does this.
    /// Default: `true`.
    pub merges_small_packets: bool,
    /// Whether a sender never has more in flight than its own receive buffer holds, whatever credit
    /// the peer gives. Default: `true`.
    pub caps_credit: bool,
    /// Whether a reader that has left less than it waits for (`SO_RCVLOWAT`; by default, nothing)
    /// reports credit immediately. Older kernels do so only when less than a packet of 64 KiB is
    /// left of the window, as far as the peer knows. Default: `true`.
    pub updates_when_empty: bool,
    /// How long a connect waits for its answer. Default: 2 s.
    pub connect_timeout: Duration,
    /// How long a closed socket waits for the peer's RST before it sends one. Default: 8 s.
    pub close_timeout: Duration,
}

impl GuestConfig {
    /// Returns the properties of Linux 6.1 as released: it counts only bytes, and a reader reports
    /// nothing while there is room.
    #[must_use]
    pub fn linux_6_1() -> Self {
        Self {
            packet_overhead: 0,
            updates_when_empty: false,
            ..Self::default()
        }
    }
}

/// The default CID.
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
    reason = "3 is a valid guest CID, which the types cannot express"
)]
fn default_cid() -> GuestCid {
    GuestCid::try_from(CID).expect("a CID that a guest may have")
}
