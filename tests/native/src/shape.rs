// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How a guest's kernel sets its driver up.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// How driver and device tell each other when they want to be notified.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, ValueEnum)]
pub(crate) enum Notifications {
    /// By the entry that they wait for (`VIRTIO_F_EVENT_IDX`), where the device offers that.
    EventIdx,
    /// By a flag.
    Flags,
}

/// Where the pieces of a packet are described.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, ValueEnum)]
pub(crate) enum Chains {
    /// In a table of their own (`VIRTIO_F_INDIRECT_DESC`), where the device offers that.
    Indirect,
    /// Each in an entry of the queue.
    Direct,
}

/// What the driver offers for a packet to the guest.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, ValueEnum)]
pub(crate) enum RxBuffer {
    /// One piece of 3,776 bytes: header and payload, in a page with the kernel's own notes.
    #[value(name = "3776")]
    Page,
    /// A header of 44 bytes and a piece of 4,096 bytes, as before Linux 6.3.
    #[value(name = "4140")]
    TwoPieces,
}

/// How a guest's kernel sets its driver up.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Shape {
    /// Entries of a queue: a power of two, 256 at most.
    pub(crate) queue_size: u16,
    pub(crate) notifications: Notifications,
    pub(crate) chains: Chains,
    pub(crate) rx_buffer: RxBuffer,
}

impl Default for Shape {
    /// A recent kernel under QEMU.
    fn default() -> Self {
        Self {
            queue_size: 128,
            notifications: Notifications::EventIdx,
            chains: Chains::Indirect,
            rx_buffer: RxBuffer::Page,
        }
    }
}

impl Shape {
    /// A kernel before 6.3, on a VMM that offers little.
    pub(crate) const PLAIN: Self = Self {
        queue_size: 256,
        notifications: Notifications::Flags,
        chains: Chains::Direct,
        rx_buffer: RxBuffer::TwoPieces,
    };
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let event_idx = match self.notifications {
            Notifications::EventIdx => "EVENT_IDX",
            Notifications::Flags => "no EVENT_IDX",
        };
        let chains = match self.chains {
            Chains::Indirect => "indirect descriptors where offered",
            Chains::Direct => "direct descriptors",
        };
        let buffer = match self.rx_buffer {
            RxBuffer::Page => "3,776",
            RxBuffer::TwoPieces => "4,140",
        };
        let size = self.queue_size;
        write!(
            f,
            "queues of {size}, {event_idx}, {chains}, receive buffers of {buffer} bytes"
        )
    }
}
