// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the threads of a device share: the front-end's requests come on one, the guest's kicks and
//! the host's streams on another.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::access_platform::AccessPlatform;
use crate::cid_claim::CidClaim;
use crate::error::VhostUserError;
use crate::inspector::Inbox;
use crate::journal::Journal;
use crate::panics::{self, catch};
use crate::shared_file::SealedMemory;
use crate::worker::Worker;

/// What a front-end may ask for.
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
    /// Where the device says what its owner should know.
    pub(crate) journal: Arc<Journal>,
    pub(crate) offer: Offer,
    /// Questions for the thread that moves bytes.
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) worker: Mutex<Worker>,
}

impl Shared {
    /// The front-end has gone.
    pub(crate) fn end(&self) {
        let remains = self.worker().end();
        // Not under the lock: the owner of a file may let its last user wait.
        drop(remains);
    }

    /// The device has ended: its backends go, whatever panics meanwhile.
    pub(crate) fn release(&self) -> Result<(), VhostUserError> {
        let backends = catch(|| self.worker().remove_backends())?;
        let settled = catch(|| self.worker().settle());
        // Not under the lock: what a backend does when it is dropped is its own affair, and it may
        // ask for the device's counters.
        let dropped = catch(|| panics::for_each(backends.into_iter(), drop));
        settled.and(dropped)
    }

    pub(crate) fn worker(&self) -> MutexGuard<'_, Worker> {
        // After a panic the device ends; until then no other thread is to panic for it.
        self.worker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
