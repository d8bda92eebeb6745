// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The state that the threads of a device share. One thread handles the front-end's requests, the
//! other one the guest's kicks and the host's streams.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::access_platform::AccessPlatform;
use crate::cid_claim::CidClaim;
use crate::error::VhostUserError;
use crate::inspector::Inbox;
use crate::journal::Journal;
use crate::panics::{self, catch};
use crate::shared_file::SealedMemory;
use crate::worker::Worker;

/// The features and limits that the device offers to a front-end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offer {
    pub(crate) features: u64,
    /// The longest queue.
    pub(crate) queue_size: u16,
    pub(crate) sealed_memory: SealedMemory,
    pub(crate) access_platform: AccessPlatform,
}

pub(crate) struct Shared {
    pub(crate) claim: CidClaim,
    /// The device's log messages.
    pub(crate) journal: Arc<Journal>,
    pub(crate) offer: Offer,
    /// Questions for the thread that moves bytes.
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) worker: Mutex<Worker>,
}

impl Shared {
    /// Releases everything that a front-end has passed, because it has disconnected.
    pub(crate) fn end(&self) {
        let remains = self.worker().end();
        // Without the lock: closing a file can block until its owner responds.
        drop(remains);
    }

    /// Drops the backends at the end of the device, regardless of panics.
    pub(crate) fn release(&self) -> Result<(), VhostUserError> {
        let backends = catch(|| self.worker().remove_backends())?;
        let settled = catch(|| self.worker().settle());
        // Without the lock: a backend that is dropped may do anything, even ask for the device's
        // counters.
        let dropped = catch(|| panics::for_each(backends.into_iter(), drop));
        settled.and(dropped)
    }

    pub(crate) fn worker(&self) -> MutexGuard<'_, Worker> {
        // A panic ends the device. Until then, it must not make other threads panic too.
        self.worker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
