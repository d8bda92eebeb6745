// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use crate::SocketType;

/// The socket types that the device and the driver have negotiated (virtio 1.3, 5.10.3).
///
/// ```
/// use vsock_proto::{SocketType, SocketTypes};
///
/// // A guest that negotiated nothing uses streams.
/// assert!(SocketTypes::from_features(0).contains(SocketType::Stream));
/// // Seqpacket implies streams, unless both sides have agreed that it does not.
/// let seqpacket = SocketTypes::F_SEQPACKET;
/// assert!(SocketTypes::from_features(seqpacket).contains(SocketType::Stream));
/// let strict = SocketTypes::from_features(seqpacket | SocketTypes::F_NO_IMPLIED_STREAM);
/// assert!(!strict.contains(SocketType::Stream));
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct SocketTypes {
    stream: bool,
    seqpacket: bool,
}

impl SocketTypes {
    /// `VIRTIO_VSOCK_F_STREAM`, as a feature bit.
    pub const F_STREAM: u64 = 1;
    /// `VIRTIO_VSOCK_F_SEQPACKET`, as a feature bit.
    pub const F_SEQPACKET: u64 = 1 << 1;
    /// `VIRTIO_VSOCK_F_NO_IMPLIED_STREAM`, as a feature bit.
    pub const F_NO_IMPLIED_STREAM: u64 = 1 << 2;

    /// Streams only, which every guest supports.
    pub const STREAM: Self = Self {
        stream: true,
        seqpacket: false,
    };

    /// Both types.
    pub const ALL: Self = Self {
        stream: true,
        seqpacket: true,
    };

    /// Returns the socket types that follow from the features that the driver has *accepted*.
    /// Features that the device only offered do not count.
    #[must_use]
    pub const fn from_features(acked: u64) -> Self {
        let seqpacket = acked & Self::F_SEQPACKET != 0;
        let implied = acked & Self::F_NO_IMPLIED_STREAM == 0;
        Self {
            stream: implied || acked & Self::F_STREAM != 0,
            seqpacket,
        }
    }

    /// Returns whether sockets of this type may be used.
    #[must_use]
    pub const fn contains(self, socket_type: SocketType) -> bool {
        match socket_type {
            SocketType::Stream => self.stream,
            SocketType::SeqPacket => self.seqpacket,
        }
    }
}
