// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The features that the device offers, and those that the driver has accepted.

use thiserror::Error;
use vsock_muxer::Muxer;
use vsock_proto::SocketTypes;

/// `VIRTIO_F_INDIRECT_DESC`: a chain may have its own descriptor table (virtio 1.3, 2.7.5.3).
pub const F_INDIRECT_DESC: u64 = 1 << 28;
/// `VIRTIO_F_EVENT_IDX`: each side names the entry for which it wants a notification (virtio 1.3,
/// 2.7.7).
pub const F_EVENT_IDX: u64 = 1 << 29;
/// `VIRTIO_F_VERSION_1`: the device complies with virtio 1.0 or later.
pub const F_VERSION_1: u64 = 1 << 32;

/// `VIRTIO_F_IN_ORDER`: the device uses buffers in the order in which they were made available
/// (virtio 1.3, 2.7.9). It does so even if the driver does not accept the feature, and for unusable
/// chains too.
pub const F_IN_ORDER: u64 = 1 << 35;

/// The features that this crate implements by itself. The device offers `VIRTIO_VSOCK_F_SEQPACKET`
/// only if a backend has seqpacket streams, because a driver that sees the bit uses it.
const OWN: u64 = F_VERSION_1
    | F_IN_ORDER
    | F_EVENT_IDX
    | F_INDIRECT_DESC
    | SocketTypes::F_STREAM
    | SocketTypes::F_NO_IMPLIED_STREAM;

/// The driver accepted features that the device did not offer, such as packed rings.
///
/// The previously accepted features stay in force. A VMM then leaves `FEATURES_OK` unset (virtio
/// 1.3, 3.1.1); a vhost-user device replies with an error.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("the driver accepted features {unoffered:#x}, which the device does not offer")]
pub struct FeatureError {
    /// The bits that were not offered.
    pub unoffered: u64,
}

/// The offered and the accepted features.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Features {
    transport: u64,
    acked: u64,
}

impl Features {
    pub(crate) const fn new(transport: u64) -> Self {
        Self {
            transport,
            acked: 0,
        }
    }

    pub(crate) fn ack(&mut self, bits: u64, muxer: &Muxer) -> Result<(), FeatureError> {
        let unoffered = bits & !self.offered(muxer);
        if unoffered != 0 {
            return Err(FeatureError { unoffered });
        }
        self.acked = bits;
        Ok(())
    }

    pub(crate) const fn reset(&mut self) {
        self.acked = 0;
    }

    /// Returns the offered features, with seqpacket sockets if a backend has streams for them.
    pub(crate) fn offered(&self, muxer: &Muxer) -> u64 {
        let types = if muxer.has_seqpacket() {
            SocketTypes::F_SEQPACKET
        } else {
            0
        };
        OWN | self.transport | types
    }

    pub(crate) const fn acked(&self) -> u64 {
        self.acked
    }

    pub(crate) const fn event_idx(&self) -> bool {
        self.acked & F_EVENT_IDX != 0
    }

    pub(crate) const fn socket_types(&self) -> SocketTypes {
        SocketTypes::from_features(self.acked)
    }
}
