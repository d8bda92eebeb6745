// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io;

use thiserror::Error;
use vhost::vhost_user::Error as ProtocolError;
use virtio_queue::Error as QueueError;

use crate::dirty_log::LogError;
use crate::memory::MemoryError;
use crate::session::QUEUES;

/// Why a front-end's request is refused.
#[derive(Debug, Error)]
pub(crate) enum Refusal {
    #[error("there is no queue {0}: expected one of {QUEUES}, counted from 0")]
    NoQueue(u32),
    #[error("invalid queue size {0}: expected a power of two up to {1}")]
    Size(u32, u16),
    #[error("invalid queue base {0}: expected at most 65535")]
    Base(u32),
    #[error("the features {0:#x} were not offered: expected a subset of the offered ones")]
    Features(u64),
    #[error("no memory is shared yet: SET_MEM_TABLE comes first")]
    NoMemory,
    #[error("the address {0:#x} is not in a memory region: expected one in shared memory")]
    NoRegion(u64),
    #[error("the addresses of the queue are not aligned")]
    Misaligned(#[source] QueueError),
    #[error("the used ring of the queue is not in a memory region: expected it in shared memory")]
    Outside,
    #[error("cannot watch the kick of a queue")]
    Kick(#[source] io::Error),
    #[error(transparent)]
    Memory(#[from] MemoryError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("the memory region contains queue {0}, which runs: stop it with GET_VRING_BASE first")]
    RegionInUse(usize),
    #[error("the device did not offer the protocol feature that the request needs")]
    NotOffered,
}

impl From<Refusal> for ProtocolError {
    fn from(refusal: Refusal) -> Self {
        Self::ReqHandlerError(io::Error::other(refusal))
    }
}
