// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Counters and queue depths of a device.

use virtio_queue::Queue;
use vm_memory::GuestMemory;

use super::VsockDevice;
use crate::virtqueue::Virtqueue;
use crate::{DeviceCounters, QueueDepths, QueueName, Queues};

impl<M: GuestMemory> VsockDevice<M> {
    /// Returns the device's counters.
    #[must_use]
    pub const fn counters(&self) -> DeviceCounters {
        self.counters
    }

    /// Returns how many chains wait in each queue. This reads one index of each queue from guest
    /// memory, and takes no chain.
    ///
    /// Returns no depths if the device is not [active](Self::is_active).
    #[must_use]
    pub fn queue_depths(&self, mem: &M, queues: &mut Queues<'_>) -> QueueDepths {
        if !self.is_active() {
            return QueueDepths::default();
        }
        let depth = |queue: &mut Queue, name| Virtqueue::new(mem, queue, name).depth();
        QueueDepths {
            rx: depth(queues.rx, QueueName::Rx),
            tx: depth(queues.tx, QueueName::Tx),
            event: queues
                .event
                .as_deref_mut()
                .and_then(|event| depth(event, QueueName::Event)),
        }
    }
}
