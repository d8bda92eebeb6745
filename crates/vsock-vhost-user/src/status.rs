// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::fmt;
use std::sync::{Arc, Weak};

use crate::shared::Shared;
use crate::stopper::Stopper;

/// What a device is doing, for a line that a person reads.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct DeviceStatus {
    /// Whether a VMM is connected.
    pub has_vmm: bool,
    /// Connections of its guest, in both directions.
    pub connections: usize,
}

/// Tells what a device is doing, from any thread, until it goes: see
/// [`VhostUserVsock::status_handle`](crate::VhostUserVsock::status_handle). It keeps nothing of the
/// device.
#[derive(Clone)]
pub struct StatusHandle {
    shared: Weak<Shared>,
    stopper: Stopper,
}

impl StatusHandle {
    pub(crate) fn new(shared: &Arc<Shared>, stopper: Stopper) -> Self {
        let shared = Arc::downgrade(shared);
        Self { shared, stopper }
    }

    /// What it does now; `None` once it has gone.
    ///
    /// It waits for the thread that moves bytes to finish what it does, so it is not for a backend
    /// to ask while the device calls it.
    #[must_use]
    pub fn status(&self) -> Option<DeviceStatus> {
        let shared = self.shared.upgrade()?;
        let connections = shared.worker().connections();
        Some(DeviceStatus {
            has_vmm: self.stopper.has_session(),
            connections,
        })
    }
}

impl fmt::Debug for StatusHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatusHandle").finish_non_exhaustive()
    }
}
