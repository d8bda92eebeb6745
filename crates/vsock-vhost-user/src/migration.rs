// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a front-end has said about a live migration: its log, and what to mark in it
//! (vhost-user, "Migration").
//!
//! Pages are marked while there is a log and either `VHOST_F_LOG_ALL` was accepted, or a queue has
//! `VHOST_VRING_F_LOG`: then all written pages, of rings and buffers alike. An extra page in the
//! log costs a copy; a missing one corrupts the guest. Front-ends change both while the queues run.

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
    /// The log in which each region of the front-end's memory marks its pages.
    pub(crate) const fn log(&self) -> &Arc<DirtyLog> {
        &self.log
    }

    /// The front-end has accepted these features, with memory that ends at `end`.
    pub(crate) fn accept_features(
        &mut self,
        features: u64,
        end: u64,
        shared: &Shared,
    ) -> Result<(), LogError> {
        self.all = features & VhostUserVirtioFeatures::LOG_ALL.bits() != 0;
        self.update(end, shared)
    }

    /// The front-end turns marking of the writes to a queue's used ring on or off.
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

    /// The front-end resets the device: nothing is marked until it asks again.
    pub(crate) fn forget(&mut self, shared: &Shared) {
        (self.all, self.rings) = (false, [false; QUEUES]);
        let _no_step = shared.worker();
        self.log.switch(Marking::Off);
    }

    /// Takes another log, in which every page written after this is marked. This may wait for the
    /// owner of the log's file.
    pub(crate) fn set_log(
        &self,
        file: File,
        part: Part,
        end: u64,
        shared: &Shared,
    ) -> Result<(), LogError> {
        let log = LogFile::map(file, part, end, shared.offer.sealed_memory)?;
        let before = {
            let _no_step = shared.worker();
            let before = self.log.replace(log);
            self.log.switch(self.marking());
            before
        };
        // Without the worker's lock: unmapping can take long.
        drop(before);
        Ok(())
    }

    /// Checks memory that ends at `end` before it is used: a write to a page without a bit could
    /// not be marked.
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
