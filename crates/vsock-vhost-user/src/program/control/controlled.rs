// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use vsock_sockets::journal::Journal;

use super::guests::Guests;
use crate::program::capture::CaptureControl;

/// The parts of the program that the control socket gives access to, and its log.
#[derive(Debug)]
pub(crate) struct Controlled {
    pub(crate) guests: Guests,
    pub(crate) capture: CaptureControl,
    /// For messages that clients can repeat.
    pub(crate) journal: Journal,
}

impl Controlled {
    pub(crate) fn new(guests: Guests, capture: CaptureControl) -> Self {
        Self {
            guests,
            capture,
            journal: Journal::default(),
        }
    }
}
