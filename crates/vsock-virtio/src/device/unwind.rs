// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Breaks the device after a panic in foreign code: a stream, a backend or guest memory.

use vm_memory::GuestMemory;
use vsock_proto::Tick;

use super::{Phase, VsockDevice};
use crate::{DeviceFault, FaultCause, QueueName};

/// A guard that breaks the device unless the guarded call returns.
struct Unwinding<'a, M: GuestMemory> {
    device: &'a mut VsockDevice<M>,
    now: Tick,
    returned: bool,
}

impl<M: GuestMemory> Drop for Unwinding<'_, M> {
    fn drop(&mut self) {
        if !self.returned && self.device.has_driver() {
            self.device.break_down(
                self.now,
                DeviceFault {
                    queue: QueueName::Rx,
                    cause: FaultCause::Panic,
                },
            );
        }
    }
}

impl<M: GuestMemory> VsockDevice<M> {
    /// Runs a call that may run foreign code. A panic in it breaks an active device: the call may
    /// have taken chains from the guest and bytes from streams that it can no longer deliver.
    pub(super) fn unwinding<R>(&mut self, now: Tick, call: impl FnOnce(&mut Self) -> R) -> R {
        let mut guard = Unwinding {
            device: self,
            now,
            returned: false,
        };
        let result = call(guard.device);
        guard.returned = true;
        result
    }

    /// Closes every connection and stops the device until a reset. Asks no stream for anything,
    /// because a stream's panic may be unwinding.
    pub(super) fn break_down(&mut self, now: Tick, fault: DeviceFault) {
        self.muxer.reset(now);
        self.quiet();
        self.phase = Phase::Broken(fault);
    }
}
