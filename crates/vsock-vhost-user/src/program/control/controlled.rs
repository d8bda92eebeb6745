// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use super::guests::Guests;
use crate::program::capture::CaptureControl;

/// The parts of the program that the control socket gives access to.
#[derive(Clone, Debug)]
pub(crate) struct Controlled {
    pub(crate) guests: Guests,
    pub(crate) capture: CaptureControl,
}
