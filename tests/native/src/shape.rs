// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How a guest's kernel configures its driver.

use serde::{Deserialize, Serialize};

/// The buffers that the driver offers for packets to the guest.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) enum RxBuffer {
    /// One piece of 3,776 bytes for header and payload, in a page with the kernel's own data.
    Page,
    /// A header of 44 bytes and a piece of 4,096 bytes, as before Linux 6.3.
    TwoPieces,
}

/// When the guest sends a credit update for what its programs have read.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) enum CreditUpdates {
    /// When the device believes that less than one packet's room is left: before Linux 6.8.
    LittleRoom,
    /// Also when a program has read everything: since Linux 6.8.
    AllRead,
}

/// The configuration of a guest's driver.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Shape {
    /// Entries of a queue: a power of two, at most 256.
    pub(crate) queue_size: u16,
    /// Use `VIRTIO_F_EVENT_IDX` if the device offers it. Otherwise flags request notifications.
    pub(crate) event_idx: bool,
    /// Use `VIRTIO_F_INDIRECT_DESC` if the device offers it. Otherwise each piece of a packet takes
    /// an entry of the queue.
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
    /// A recent kernel.
    pub(crate) const RECENT: Self = Self {
        credit_updates: CreditUpdates::AllRead,
        ..Self::USUAL
    };
}
