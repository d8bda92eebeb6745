// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How a guest's kernel sets its driver up.

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

/// When the guest says by a message of its own what its programs have read.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, ValueEnum)]
pub(crate) enum CreditUpdates {
    /// When the device believes to have less than one packet's room left: before Linux 6.8.
    LittleRoom,
    /// Also when a program has read all that came: since Linux 6.8.
    AllRead,
}

/// How a guest's kernel sets its driver up.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Shape {
    /// Entries of a queue: a power of two, 256 at most.
    pub(crate) queue_size: u16,
    pub(crate) notifications: Notifications,
    pub(crate) chains: Chains,
    pub(crate) rx_buffer: RxBuffer,
    pub(crate) credit_updates: CreditUpdates,
}

impl Default for Shape {
    /// Linux 6.3 to 6.7 under QEMU.
    fn default() -> Self {
        Self {
            queue_size: 128,
            notifications: Notifications::EventIdx,
            chains: Chains::Indirect,
            rx_buffer: RxBuffer::Page,
            credit_updates: CreditUpdates::LittleRoom,
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
        credit_updates: CreditUpdates::LittleRoom,
    };

    /// A kernel of today.
    pub(crate) fn recent() -> Self {
        Self {
            credit_updates: CreditUpdates::AllRead,
            ..Self::default()
        }
    }
}
