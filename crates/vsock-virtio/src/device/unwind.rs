// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What holds after a panic of code that is not ours: a stream's, a backend's, that of guest
//! memory.

use vm_memory::GuestMemory;
use vsock_proto::Tick;

use super::{Phase, VsockDevice};
use crate::{DeviceFault, FaultCause, QueueName};

/// Breaks the device, unless the call has come to its end.
struct Unwinding<'a, M: GuestMemory> {
    device: &'a mut VsockDevice<M>,
    now: Tick,
    ended: bool,
}

impl<M: GuestMemory> Drop for Unwinding<'_, M> {
    fn drop(&mut self) {
        if !self.ended && self.device.has_driver() {
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
    /// Makes a call in which code runs that is not ours. A panic that leaves it breaks an active
    /// device: chains of the guest were taken that are not given back, and bytes of streams with
    /// them.
    pub(super) fn unwinding<R>(&mut self, now: Tick, call: impl FnOnce(&mut Self) -> R) -> R {
        let mut guard = Unwinding {
            device: self,
            now,
            ended: false,
        };
        let result = call(guard.device);
        guard.ended = true;
        result
    }

    /// Closes every connection; nothing is done any more until a reset. Asks no stream for
    /// anything.
    pub(super) fn break_down(&mut self, now: Tick, fault: DeviceFault) {
        self.muxer.reset(now);
        self.quiet();
        self.phase = Phase::Broken(fault);
    }
}
