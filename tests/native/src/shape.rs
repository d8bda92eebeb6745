// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How a guest's kernel sets its driver up.

use serde::{Deserialize, Serialize};

/// What the driver offers for a packet to the guest.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) enum RxBuffer {
    /// One piece of 3,776 bytes: header and payload, in a page with the kernel's own notes.
    Page,
    /// A header of 44 bytes and a piece of 4,096 bytes, as before Linux 6.3.
    TwoPieces,
}

/// When the guest says by a message of its own what its programs have read.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
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
    /// Whether each side says for which entry it wants to be notified (`VIRTIO_F_EVENT_IDX`), where
    /// the device offers that; else a flag says it.
    pub(crate) event_idx: bool,
    /// Whether the pieces of a packet are in a table of their own (`VIRTIO_F_INDIRECT_DESC`), where
    /// the device offers that; else each is in an entry of the queue.
    pub(crate) indirect: bool,
    pub(crate) rx_buffer: RxBuffer,
    pub(crate) credit_updates: CreditUpdates,
}

impl Shape {
    /// Linux 6.3 to 6.7 under QEMU.
    pub(crate) const USUAL: Self = Self {
        queue_size: 128,
        event_idx: true,
        indirect: true,
        rx_buffer: RxBuffer::Page,
        credit_updates: CreditUpdates::LittleRoom,
    };
    /// A kernel before 6.3, on a VMM that offers little.
    pub(crate) const PLAIN: Self = Self {
        queue_size: 256,
        event_idx: false,
        indirect: false,
        rx_buffer: RxBuffer::TwoPieces,
        ..Self::USUAL
    };
    /// A kernel of today.
    pub(crate) const RECENT: Self = Self {
        credit_updates: CreditUpdates::AllRead,
        ..Self::USUAL
    };
}
