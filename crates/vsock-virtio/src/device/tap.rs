// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A capture of the packets that pass.

use vm_memory::GuestMemory;

use super::VsockDevice;
use crate::PacketTap;

impl<M: GuestMemory> VsockDevice<M> {
    /// Shows each packet to `tap` from now on, both ways, or to none; returns the tap before. It
    /// stays when the driver resets the device.
    ///
    /// Packets cost nothing more while there is none: one comparison.
    pub fn set_tap(&mut self, tap: Option<Box<dyn PacketTap>>) -> Option<Box<dyn PacketTap>> {
        self.tap.replace(tap)
    }
}
