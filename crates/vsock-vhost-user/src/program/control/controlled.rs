// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use super::guests::Guests;
use crate::program::capture::CaptureControl;

/// What the control socket is for.
#[derive(Clone, Debug)]
pub(crate) struct Controlled {
    pub(crate) guests: Guests,
    pub(crate) capture: CaptureControl,
}
