// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which notifications are left out (ADR 0013): those of no use. Neither side ever waits for one.
//!
//! *Kicks.* After work the device polls for a while, with kicks off, instead of sleeping; so a packet that comes
//! then costs neither an exit of the guest nor a wake-up of the device's thread.
//!
//! ```text
//!                    moved something, and a poll pays
//!  ┌────────────────┐ ──────────────────────────────▶ ┌───────────────────────┐ ──┐ moved something:
//!  │ asleep         │                                 │ polling until a time  │   │ the time begins anew
//!  │ kicks are on   │ ◀────────────────────────────── │ kicks are off         │ ◀─┘
//!  └────────────────┘  the time is over: kicks on,    └───────────────────────┘
//!                      look once more
//! ```
//!
//! After [`TRIES`] polls in a row that found nothing, only one in [`RARELY`] wake-ups is followed by one: an idle or
//! slow guest costs nothing, and where device and guest share a processor, the guest has it.
//!
//! *Interrupts.* A filled buffer is told immediately, if the driver asks for it. That packets were taken is of use only to
//! a driver that runs out of buffers, or has stopped sending: so one interrupt for a batch is enough while the
//! device is awake and the guest sends. See [`Batch`].

use std::time::Duration;

use vsock_proto::Tick;

use crate::suppression::Kicks;

/// So many polls in a row may find nothing before they become rare.
const TRIES: u32 = 3;
/// Of how many wake-ups one is followed by a poll then.
const RARELY: u32 = 16;

/// The part of the queue that a batch of used packets takes at most.
const PART_OF_QUEUE: usize = 4;
/// How long the first packet of a batch waits at most, of a guest that never stops sending.
const LONGEST_BATCH: Duration = Duration::from_millis(2);

/// What the device knows of its notifications between two calls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Notifications {
    pub(crate) rx_kicks: Kicks,
    pub(crate) tx_kicks: Kicks,
    pub(crate) polling: Polling,
    pub(crate) taken: Batch,
}

impl Notifications {
    /// Of queues that are new, or have been served by another device; polls take so long.
    pub(crate) const fn new(poll_budget: Duration) -> Self {
        Self {
            rx_kicks: Kicks::Unknown,
            tx_kicks: Kicks::Unknown,
            polling: Polling::new(poll_budget),
            taken: Batch::EMPTY,
        }
    }

    /// The queues are others, or there are none.
    pub(crate) const fn restart(&mut self) {
        *self = Self::new(self.polling.budget);
    }

    /// Whether the driver is to be told now of the packets that were taken, in a queue of this size, by a device that
    /// sleeps after this call or not.
    pub(crate) fn is_batch_due(&self, now: Tick, size: u16) -> bool {
        self.polling.until.is_none() || self.taken.is_due(now, size, self.polling.budget)
    }
}

/// Whether a call of the device has moved anything.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Moved {
    Nothing,
    Something,
}

/// When the device polls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Polling {
    budget: Duration,
    /// It polls until then; `None` while it sleeps.
    until: Option<Tick>,
    /// Polls in a row that found nothing.
    misses: u32,
    /// Wake-ups since the last poll.
    skipped: u32,
}

impl Polling {
    const fn new(budget: Duration) -> Self {
        Self {
            budget,
            until: None,
            misses: 0,
            skipped: 0,
        }
    }

    /// A call has come to its end. Returns until when to poll; `None`: the device turns kicks on, looks once more, and
    /// sleeps.
    pub(crate) fn next(&mut self, now: Tick, moved: Moved) -> Option<Tick> {
        let pays = match (self.until, moved) {
            (Some(_), Moved::Something) => {
                self.misses = 0;
                true
            }
            (Some(until), Moved::Nothing) if now < until => return self.until,
            (Some(_), Moved::Nothing) => {
                self.misses = self.misses.saturating_add(1);
                false
            }
            (None, Moved::Something) => self.pays(),
            (None, Moved::Nothing) => false,
        };
        self.until = pays.then(|| now.saturating_add(self.budget));
        self.until
    }

    /// Whether a poll is likely to find something, or is to be tried again.
    fn pays(&mut self) -> bool {
        if self.budget.is_zero() {
            return false;
        }
        self.skipped += 1;
        let pays = self.misses < TRIES || self.skipped >= RARELY;
        if pays {
            self.skipped = 0;
        }
        pays
    }
}

/// Packets that were taken, of which the driver was not told.
///
/// It is told when the device goes to sleep, when the guest has sent nothing for as long as a poll takes, when they
/// are a quarter of the queue, and after two milliseconds: so it never runs out of buffers for want of an
/// interrupt. Whether it wants one it has said by then, as for any batch (virtio 1.3, 2.7.7.2).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Batch {
    chains: u16,
    descriptors: usize,
    /// When the first and the last of them were taken.
    first: Tick,
    last: Tick,
}

impl Batch {
    const EMPTY: Self = Self {
        chains: 0,
        descriptors: 0,
        first: Tick::ZERO,
        last: Tick::ZERO,
    };

    /// More packets were taken, in this many chains and descriptors.
    pub(crate) fn add(&mut self, now: Tick, chains: u16, descriptors: usize) {
        if chains == 0 {
            return;
        }
        if self.chains == 0 {
            self.first = now;
        }
        self.last = now;
        self.chains = self.chains.saturating_add(chains);
        self.descriptors = self.descriptors.saturating_add(descriptors);
    }

    /// The chains of which the driver is told now, and of which it need not be told again.
    pub(crate) fn take(&mut self) -> u16 {
        std::mem::replace(self, Self::EMPTY).chains
    }

    fn is_due(&self, now: Tick, size: u16, pause: Duration) -> bool {
        self.descriptors.saturating_mul(PART_OF_QUEUE) >= size.into()
            || now.since(self.last) >= pause
            || now.since(self.first) >= LONGEST_BATCH
    }
}
