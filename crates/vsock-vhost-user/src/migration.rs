// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The front-end's requests for a live migration: the log, and which writes to mark in it
//! (vhost-user, "Migration").
//!
//! The device marks all written pages, of rings and buffers alike, while there is a log and either
//! `VHOST_F_LOG_ALL` was accepted or a queue has `VHOST_VRING_F_LOG`. An extra page in the log
//! costs a copy; a missing one corrupts the guest. Front-ends change both settings while the queues
//! run.

use std::fs::File;
use std::sync::Arc;

use vhost::vhost_user::message::{VhostUserVirtioFeatures, VhostUserVringAddrFlags};

use crate::dirty_log::{DirtyLog, LogError, LogFile, Marking};
use crate::session::QUEUES;
use crate::shared::Shared;
use crate::shared_file::Part;
use crate::worker::QueueIndex;

#[derive(Debug, Default)]
pub(crate) struct Migration {
    log: Arc<DirtyLog>,
    /// Whether to mark all writes.
    all: bool,
    /// Whether to mark the writes to each queue's used ring.
    rings: [bool; QUEUES],
}

impl Migration {
    /// Returns the log in which each memory region marks its pages.
    pub(crate) const fn log(&self) -> &Arc<DirtyLog> {
        &self.log
    }

    /// Turns marking of all writes on or off, as these accepted features require. The memory ends
    /// at `end`.
    pub(crate) fn accept_features(
        &mut self,
        features: u64,
        end: u64,
        shared: &Shared,
    ) -> Result<(), LogError> {
        self.all = features & VhostUserVirtioFeatures::LOG_ALL.bits() != 0;
        self.update(end, shared)
    }

    /// Turns marking of writes to a queue's used ring on or off.
    pub(crate) fn set_ring(
        &mut self,
        queue: QueueIndex,
        flags: &VhostUserVringAddrFlags,
        end: u64,
        shared: &Shared,
    ) -> Result<(), LogError> {
        self.rings[queue.number()] = flags.contains(VhostUserVringAddrFlags::VHOST_VRING_F_LOG);
        self.update(end, shared)
    }

    /// Stops marking because the front-end has reset the device, until it asks again.
    pub(crate) fn forget(&mut self, shared: &Shared) {
        (self.all, self.rings) = (false, [false; QUEUES]);
        // With this lock the device thread is between two steps, so no write is in progress.
        let _no_step = shared.worker();
        self.log.switch(Marking::Off);
    }

    /// Switches to another log, in which the device marks every page that it writes from now on.
    /// This may block until the owner of the log's file responds.
    pub(crate) fn set_log(
        &self,
        file: File,
        part: Part,
        end: u64,
        shared: &Shared,
    ) -> Result<(), LogError> {
        let log = LogFile::map(file, part, end, shared.offer.sealed_memory)?;
        let before = {
            // Between two steps of the device thread, so that each write is marked in one log.
            let _no_step = shared.worker();
            let before = self.log.replace(log);
            self.log.switch(self.marking());
            before
        };
        // Without the worker's lock: unmapping can take a long time.
        drop(before);
        Ok(())
    }

    /// Checks, before memory that ends at `end` is used, that the log has a bit for each of its
    /// pages.
    pub(crate) fn check_memory(&self, end: u64) -> Result<(), LogError> {
        match self.marking() {
            Marking::On => self.log.check_covers(end),
            Marking::Off => Ok(()),
        }
    }

    const fn marking(&self) -> Marking {
        let [rx, tx, event] = self.rings;
        if self.all || rx || tx || event {
            Marking::On
        } else {
            Marking::Off
        }
    }

    fn update(&self, end: u64, shared: &Shared) -> Result<(), LogError> {
        self.check_memory(end)?;
        let _no_step = shared.worker();
        self.log.switch(self.marking());
        Ok(())
    }
}
