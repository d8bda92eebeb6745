// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The device's packet tap.

use vm_memory::GuestMemory;

use super::VsockDevice;
use crate::PacketTap;

impl<M: GuestMemory> VsockDevice<M> {
    /// Shows each packet in both directions to `tap` from now on. `None` removes the tap. Returns
    /// the previous tap.
    ///
    /// The tap stays when the driver resets the device. Without one, each packet costs one
    /// comparison.
    pub fn set_tap(&mut self, tap: Option<Box<dyn PacketTap>>) -> Option<Box<dyn PacketTap>> {
        self.tap.replace(tap)
    }
}
