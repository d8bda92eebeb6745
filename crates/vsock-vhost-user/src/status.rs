// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::fmt;
use std::sync::{Arc, Weak};

use crate::shared::Shared;
use crate::stopper::Stopper;

/// A brief status of a device, for people to read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct DeviceStatus {
    /// Whether a VMM is connected.
    pub has_vmm: bool,
    /// The number of connections of its guest, in both directions.
    pub connections: usize,
}

/// A handle to the status of a device, for any thread: see
/// [`VhostUserVsock::status_handle`](crate::VhostUserVsock::status_handle). It does not keep the
/// device alive.
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

    /// Returns the current status, or `None` if the device no longer exists.
    ///
    /// This waits until the device thread has finished its current work, so a backend must not call
    /// it while the device calls the backend.
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
