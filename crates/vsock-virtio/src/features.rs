// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which features the device offers, and which of them the driver has accepted.

use thiserror::Error;
use vsock_muxer::Muxer;
use vsock_proto::SocketTypes;

/// `VIRTIO_F_INDIRECT_DESC`: a chain may lie in a table of its own (virtio 1.3, 2.7.5.3).
pub const F_INDIRECT_DESC: u64 = 1 << 28;
/// `VIRTIO_F_EVENT_IDX`: each side says at which entry it wants to be notified (virtio 1.3, 2.7.7).
pub const F_EVENT_IDX: u64 = 1 << 29;
/// `VIRTIO_F_VERSION_1`: the device is one of virtio 1.0 or later.
pub const F_VERSION_1: u64 = 1 << 32;

/// `VIRTIO_F_IN_ORDER`: the device uses buffers in the order in which they were made available
/// (virtio 1.3, 2.7.9). It does so whether or not the driver accepts the feature, even when it
/// skips unusable chains.
pub const F_IN_ORDER: u64 = 1 << 35;

/// What this crate implements by itself. `VIRTIO_VSOCK_F_SEQPACKET` is offered where a backend has
/// streams for it: a driver that sees it tries it.
const OWN: u64 = F_VERSION_1
    | F_IN_ORDER
    | F_EVENT_IDX
    | F_INDIRECT_DESC
    | SocketTypes::F_STREAM
    | SocketTypes::F_NO_IMPLIED_STREAM;

/// Features that a driver accepted although they were not offered, such as those of packed rings.
///
/// The set that was in force before stays in force. A VMM leaves `FEATURES_OK` unset then (virtio
/// 1.3, 3.1.1); a vhost-user device answers with an error.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("features {unoffered:#x} were accepted and never offered")]
pub struct FeatureError {
    /// The bits that were not offered.
    pub unoffered: u64,
}

/// Offered and accepted features: two sets that are kept apart.
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

    /// What is offered: seqpacket sockets if a backend of the muxer has streams for them.
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
