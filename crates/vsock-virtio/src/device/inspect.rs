// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What can be seen of a device from outside.

use virtio_queue::Queue;
use vm_memory::GuestMemory;

use super::VsockDevice;
use crate::virtqueue::Virtqueue;
use crate::{DeviceCounters, QueueDepths, QueueName, Queues};

impl<M: GuestMemory> VsockDevice<M> {
    /// What has been counted.
    #[must_use]
    pub const fn counters(&self) -> DeviceCounters {
        self.counters
    }

    /// How many chains wait in each queue. It reads an index of each from guest memory, and takes
    /// nothing.
    ///
    /// A device that is not [active](Self::is_active) has no queues, whatever it is given.
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
