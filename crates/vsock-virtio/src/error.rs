// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use thiserror::Error;
use vsock_muxer::StateVersionError;

use crate::FeatureError;

/// One of the device's queues (virtio 1.3, 5.10.2).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum QueueName {
    /// Queue 0: buffers of the guest for what comes from the host.
    Rx,
    /// Queue 1: packets of the guest.
    Tx,
    /// Queue 2: buffers of the guest for events.
    Event,
}

impl QueueName {
    /// The index by which the driver knows the queue.
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
    /// It is active, or broken, and has not been reset since.
    #[error("the device is in use; reset it first")]
    InUse,
    /// The queue is not marked ready, or does not lie in guest memory.
    #[error("the {0} queue is not usable: it must be ready, with its rings in guest memory")]
    InvalidQueue(QueueName),
}

/// Why a device cannot go on where another stopped.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum RestoreError {
    /// A release saved it whose states this release does not know.
    #[error("the saved device is from another release")]
    Version(#[from] StateVersionError),
    /// It offers less than the one that was saved.
    #[error("the saved features cannot be accepted")]
    Features(#[from] FeatureError),
    /// It cannot be activated.
    #[error("the saved device cannot be activated")]
    Activate(#[from] ActivateError),
}

/// A queue that breaks the rules, so that the device cannot go on: a VMM sets
/// `DEVICE_NEEDS_RESET` (virtio 1.3, 2.1.2).
///
/// A bad descriptor chain is no fault: it is given back to the guest and counted.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("the {queue} queue is broken: {cause}")]
pub struct DeviceFault {
    /// The queue.
    pub queue: QueueName,
    /// What is wrong with it. The message says it, so it is no `source` as well.
    pub cause: FaultCause,
}

/// What is wrong with a queue.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum FaultCause {
    /// More chains are available than the queue has entries.
    #[error("the available index is more than the queue's size ahead")]
    AvailIndex,
    /// A chain begins at a descriptor that does not exist.
    #[error("a chain's head is no index of the descriptor table")]
    HeadIndex,
    /// A part of the queue is not, or no longer, in guest memory.
    #[error("guest memory of the queue is not accessible")]
    Memory,
    /// A stream, a backend or guest memory has panicked in a call of the device, of whichever queue
    /// or of none. What the call had taken from the queues is not given back, so the receive queue
    /// is named.
    #[error("a call of the device was left by a panic")]
    Panic,
}
