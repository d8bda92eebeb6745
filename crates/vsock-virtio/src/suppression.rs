// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Notification suppression of a split virtqueue (virtio 1.3, 2.7.7 to 2.7.10): how either side
//! says when it wants to hear of the other.
//!
//! A side that has done something publishes it, and then reads whether the other side wants to
//! know. A side that is about to sleep writes that it wants to know, and then looks once more at
//! what there is:
//!
//! ```text
//! the driver makes a chain available      the device is about to sleep
//!   store the available index               store avail_event, or the flags
//!   full fence                              full fence
//!   load avail_event, or the flags          load the available index
//! ```
//!
//! Of the two loads at least one sees the other side's store: so the driver kicks, or the device
//! finds the chain. Interrupts are the same with the sides exchanged. `docs/concurrency.md` has the
//! argument, and `loom_model` explores it.

#[cfg(all(test, loom))]
mod loom_model;

use std::num::Wrapping;
use std::sync::atomic::Ordering;

use crate::fields::{Inaccessible, SharedFields};

/// `VIRTQ_AVAIL_F_NO_INTERRUPT` (virtio 1.3, 2.7.6).
const NO_INTERRUPT: u16 = 1;
/// `VIRTQ_USED_F_NO_NOTIFY` (virtio 1.3, 2.7.10).
const NO_NOTIFY: u16 = 1;

/// By what either side suppresses notifications.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Suppression {
    Flags,
    /// `VIRTIO_F_EVENT_IDX` was negotiated: each names the chain of which it wants to hear.
    EventIdx,
}

impl Suppression {
    /// Asks for a kick with the chain that is counted `next`. A look at the available index after
    /// this finds that chain, or a kick will come for it.
    pub(crate) fn ask_for_kick(
        self,
        fields: &impl SharedFields,
        next: u16,
    ) -> Result<(), Inaccessible> {
        match self {
            // ORDER: Relaxed; the fence orders it; partner: the driver's load of the flags after
            // its own fence, when it has published its index.
            Self::Flags => fields.set_used_flags(0, Ordering::Relaxed)?,
            // ORDER: Relaxed; likewise; partner: the driver's load of `avail_event`.
            Self::EventIdx => fields.set_avail_event(next, Ordering::Relaxed)?,
        }
        // ORDER: SeqCst, in `full_fence`; partner: the driver's full barrier between publishing its
        // index and looking whether it is to kick.
        fields.full_fence();
        Ok(())
    }

    /// Whether the driver is to be interrupted for the last `count` chains: once for all of them.
    /// The used index after them is `used`, and was published.
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
        // interrupt and looking at the used index.
        fields.full_fence();
        match self {
            Self::Flags => {
                // ORDER: Relaxed; the fence orders it; partner: the driver's store of the flags.
                Ok(fields.available_flags(Ordering::Relaxed)? & NO_INTERRUPT == 0)
            }
            Self::EventIdx => {
                // ORDER: Relaxed; likewise; partner: the driver's store of `used_event`.
                let event = fields.used_event(Ordering::Relaxed)?;
                let passed = Wrapping(used) - Wrapping(event) - Wrapping(1);
                Ok(passed.0 < count)
            }
        }
    }
}

/// What the driver was told of its kicks for one queue.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kicks {
    /// Whatever the device before told it.
    Unknown,
    Off,
    /// It kicks with the chain that is counted so.
    On {
        next: u16,
    },
}

impl Kicks {
    /// The device is about to sleep, with `next` as the next chain: asks for a kick and looks once
    /// more. Returns whether the chain is there: then it must be taken, because no kick may come
    /// for it.
    pub(crate) fn turn_on(
        &mut self,
        suppression: Suppression,
        fields: &impl SharedFields,
        next: u16,
    ) -> Result<bool, Inaccessible> {
        // The request still stands: the driver has seen it, or will see it when it publishes the
        // next chain.
        if *self == (Self::On { next }) {
            return Ok(false);
        }
        suppression.ask_for_kick(fields, next)?;
        *self = Self::On { next };
        // ORDER: Acquire; partner: the driver's release of its index. A side that sees it sees the
        // entries.
        Ok(fields.available_index(Ordering::Acquire)? != next)
    }

    /// The device is at work, or polls: kicks are of no use. With event indices the driver stops by
    /// itself, after the one that it was asked for.
    pub(crate) fn turn_off(
        &mut self,
        suppression: Suppression,
        fields: &impl SharedFields,
    ) -> Result<(), Inaccessible> {
        if suppression == Suppression::EventIdx || *self == Self::Off {
            return Ok(());
        }
        *self = Self::Off;
        // ORDER: Relaxed; partner: the driver's load, to which it is a hint.
        fields.set_used_flags(NO_NOTIFY, Ordering::Relaxed)
    }
}
