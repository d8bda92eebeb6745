// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the threads of a device share: the front-end's requests come on one, the guest's kicks and
//! the host's streams on another.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vsock_muxer::MuxerCounters;
use vsock_proto::GuestCid;
use vsock_virtio::DeviceCounters;

use crate::DeviceError;
use crate::caught::{self, caught};
use crate::claim::CidClaim;
use crate::journal::Journal;
use crate::worker::Worker;

/// What a front-end may ask for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offer {
    pub(crate) features: u64,
    /// The longest queue.
    pub(crate) queue_size: u16,
    /// Only memory that cannot shrink is accepted.
    pub(crate) sealed_memory: bool,
}

pub(crate) struct Shared {
    claim: CidClaim,
    journal: Arc<Journal>,
    offer: Offer,
    worker: Mutex<Worker>,
}

impl Shared {
    pub(crate) fn new(
        claim: CidClaim,
        journal: Arc<Journal>,
        offer: Offer,
        worker: Worker,
    ) -> Self {
        Self {
            claim,
            journal,
            offer,
            worker: Mutex::new(worker),
        }
    }

    pub(crate) fn cid(&self) -> GuestCid {
        self.claim.cid()
    }

    /// Where the device says what its owner should know.
    pub(crate) fn journal(&self) -> &Journal {
        &self.journal
    }

    pub(crate) fn offer(&self) -> Offer {
        self.offer
    }

    pub(crate) fn counters(&self) -> (MuxerCounters, DeviceCounters) {
        self.worker().counters()
    }

    pub(crate) fn is_active(&self) -> bool {
        self.worker().is_active()
    }

    /// The front-end has gone.
    pub(crate) fn end(&self) {
        let remains = self.worker().end();
        // Not under the lock: the owner of a file may let its last user wait.
        drop(remains);
    }

    /// The device has ended: its backends go, whatever panics meanwhile.
    pub(crate) fn release(&self) -> Result<(), DeviceError> {
        let backends = caught(|| self.worker().remove_backends())?;
        let settled = caught(|| self.worker().settle());
        // Not under the lock: what a backend does when it is dropped is its own affair, and it may ask
        // for the device's counters.
        let dropped = caught(|| caught::each(backends.into_iter(), drop));
        settled.and(dropped)
    }

    pub(crate) fn worker(&self) -> MutexGuard<'_, Worker> {
        // After a panic the device ends; until then nobody is to panic for it.
        self.worker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
