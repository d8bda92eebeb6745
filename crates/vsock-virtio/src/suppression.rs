// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Notification suppression of a split virtqueue (virtio 1.3, 2.7.7 to 2.7.10): how each side asks
//! the other for notifications.
//!
//! A side that has made progress publishes it, and then reads whether the other side wants a
//! notification. A side that is about to sleep asks for a notification, and then looks once more
//! for progress:
//!
//! ```text
//! the driver makes a chain available      the device is about to sleep
//!   store the available index               store avail_event, or the flags
//!   full fence                              full fence
//!   load avail_event, or the flags          load the available index
//! ```
//!
//! Both fences are sequentially consistent, so one comes first. If it is the driver's, the device's
//! load finds the chain. If it is the device's, the driver's load finds the request, and it kicks.
//! Interrupts work the same way with the sides exchanged. `loom_model` explores the interleavings.
//!
//! While the device polls, kicks are off, and its caller may sleep only after the right column.
//!
//! One check of whether the driver wants an interrupt covers several used chains. If the driver
//! asked before one of them was published, `used_event` is in the range that is checked. If later,
//! it has already seen the chain. The device stays awake until it has checked.

#[cfg(all(test, loom))]
mod loom_model;

use std::num::Wrapping;
use std::sync::atomic::Ordering;

use crate::fields::{Inaccessible, SharedFields};

/// `VIRTQ_AVAIL_F_NO_INTERRUPT` (virtio 1.3, 2.7.6).
const NO_INTERRUPT: u16 = 1;
/// `VIRTQ_USED_F_NO_NOTIFY` (virtio 1.3, 2.7.10).
const NO_NOTIFY: u16 = 1;

/// The means by which both sides suppress notifications.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Suppression {
    Flags,
    /// `VIRTIO_F_EVENT_IDX` was negotiated: each side names the chain for which it wants a
    /// notification.
    EventIdx,
}

impl Suppression {
    /// Asks for a kick for chain number `next`. Afterwards, either a look at the available index
    /// finds that chain, or the driver will kick for it.
    pub(crate) fn ask_for_kick(
        self,
        fields: &impl SharedFields,
        next: u16,
    ) -> Result<(), Inaccessible> {
        match self {
            // ORDER: Relaxed, ordered by the fence below; partner: the driver's load of the flags,
            // after it has published its index and executed its own fence.
            Self::Flags => fields.set_used_flags(0, Ordering::Relaxed)?,
            // ORDER: Relaxed, likewise; partner: the driver's load of `avail_event`.
            Self::EventIdx => fields.set_avail_event(next, Ordering::Relaxed)?,
        }
        // ORDER: SeqCst, in `full_fence`; partner: the driver's full barrier between publishing its
        // index and checking whether to kick.
        fields.full_fence();
        Ok(())
    }

    /// Whether to send the driver one interrupt for the last `count` chains. `used` is the used
    /// index after these chains, which has been published.
    pub(crate) fn wants_interrupt(
        self,
        fields: &impl SharedFields,
        used: u16,
        count: u16,
    ) -> Result<bool, Inaccessible> {
        if count == 0 {
            return Ok(false);
        }
        // ORDER: SeqCst, in `full_fence`; partner: the driver's full barrier between asking for an
        // interrupt and reading the used index.
        fields.full_fence();
        match self {
            Self::Flags => {
                // ORDER: Relaxed, ordered by the fence above; partner: the driver's store of the
                // flags.
                Ok(fields.available_flags(Ordering::Relaxed)? & NO_INTERRUPT == 0)
            }
            Self::EventIdx => {
                // ORDER: Relaxed, likewise; partner: the driver's store of `used_event`.
                let event = fields.used_event(Ordering::Relaxed)?;
                // The driver wants an interrupt when the used index passes `event`. The last chains
                // are number `used - count` to `used - 1`, so `event` is among them if and only if
                // the wrapping distance `used - 1 - event` is less than `count`.
                let passed = Wrapping(used) - Wrapping(event) - Wrapping(1);
                Ok(passed.0 < count)
            }
        }
    }
}

/// The device's current request for kicks of one queue.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kicks {
    /// Another device may have left any request.
    Unknown,
    Off,
    /// The driver kicks for chain number `next`.
    On {
        next: u16,
    },
}

impl Kicks {
    /// Before the device sleeps: asks for a kick for chain number `next`, and looks once more.
    /// Returns whether the chain is available. If so, the device must take it, because there may be
    /// no kick for it.
    pub(crate) fn turn_on(
        &mut self,
        suppression: Suppression,
        fields: &impl SharedFields,
        next: u16,
    ) -> Result<bool, Inaccessible> {
        // The request is still in force, and the device looked at the index after making it. The
        // driver sees the request when it publishes the next chain.
        if *self == (Self::On { next }) {
            return Ok(false);
        }
        suppression.ask_for_kick(fields, next)?;
        *self = Self::On { next };
        // ORDER: Acquire; partner: the driver's release of its index. A device that sees the index
        // also sees the entries before it.
        Ok(fields.available_index(Ordering::Acquire)? != next)
    }

    /// Turns kicks off while the device works or polls. With event indices there is nothing to do:
    /// the driver kicks only for the chain that was named.
    pub(crate) fn turn_off(
        &mut self,
        suppression: Suppression,
        fields: &impl SharedFields,
    ) -> Result<(), Inaccessible> {
        if suppression == Suppression::EventIdx || *self == Self::Off {
            return Ok(());
        }
        *self = Self::Off;
        // ORDER: Relaxed; partner: the driver's load. The flag is only a hint, so a late store
        // costs at most a spurious kick.
        fields.set_used_flags(NO_NOTIFY, Ordering::Relaxed)
    }
}
