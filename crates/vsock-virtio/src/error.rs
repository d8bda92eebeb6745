// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use thiserror::Error;
use vsock_muxer::StateVersionError;

use crate::FeatureError;

/// One of the device's queues (virtio 1.3, 5.10.2).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum QueueName {
    /// Queue 0: the guest's buffers for packets from the host.
    Rx,
    /// Queue 1: packets from the guest.
    Tx,
    /// Queue 2: the guest's buffers for events.
    Event,
}

impl QueueName {
    /// Returns the queue's index in the virtio device.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::Rx => 0,
            Self::Tx => 1,
            Self::Event => 2,
        }
    }
}

impl std::fmt::Display for QueueName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Rx => "receive",
            Self::Tx => "transmit",
            Self::Event => "event",
        })
    }
}

/// Why a device cannot be activated.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum ActivateError {
    /// The device is active, paused or broken. It must be reset first.
    #[error("the device is in use; reset it first")]
    InUse,
    /// The queue is not marked ready, or is not entirely in guest memory.
    #[error("the {0} queue is not usable: it must be ready, with its rings in guest memory")]
    InvalidQueue(QueueName),
}

/// Why a device cannot be restored from a saved state.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum RestoreError {
    /// Another release saved the state, in a version that this release does not support.
    #[error("the saved device is from another release")]
    Version(#[from] StateVersionError),
    /// The saved features include one that this device does not offer.
    #[error("the saved features cannot be accepted")]
    Features(#[from] FeatureError),
    /// The device cannot be activated.
    #[error("the saved device cannot be activated")]
    Activate(#[from] ActivateError),
}

/// A violation of the virtqueue rules that stops the device. A VMM then sets `DEVICE_NEEDS_RESET`
/// (virtio 1.3, 2.1.2).
///
/// A malformed descriptor chain is not a fault: the device counts it and returns it to the guest.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("the {queue} queue is broken: {cause}")]
pub struct DeviceFault {
    /// The queue.
    pub queue: QueueName,
    /// What is wrong with the queue. The message includes this, so `source` does not return it.
    pub cause: FaultCause,
}

/// What is wrong with a broken queue.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum FaultCause {
    /// More chains are available than the queue has entries.
    #[error("the available index is ahead by more than the queue's size")]
    AvailIndex,
    /// A chain begins at a descriptor that does not exist.
    #[error("a chain's head is outside the descriptor table")]
    HeadIndex,
    /// Part of the queue is not in guest memory, or is no longer there.
    #[error("part of the queue is not in guest memory")]
    Memory,
    /// A stream, a backend or guest memory panicked during a call of the device. The chains that
    /// the call had taken are not returned. The fault names the receive queue, although the panic
    /// may concern another queue, or none.
    #[error("a call of the device ended in a panic")]
    Panic,
}
