// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Suppresses notifications that neither side needs (ADR 0013). Neither side ever waits for one of
//! these.
//!
//! *Kicks.* After work the device may poll for a while with kicks off, instead of sleeping. A
//! packet that arrives meanwhile costs neither a VM exit nor a wake-up of the device thread.
//!
//! ```text
//!   ┌──────────┐ found nothing  ┌───────────────────────┐
//!   │ at work  │ ─────────────▶ │ polling for the       │
//!   │ kicks    │                │ budget, kicks off     │
//!   │ are off  │ ◀───────────── │                       │
//!   └──────────┘  found work:   └───────────────────────┘
//!    │        ▲   a hit                     │ found nothing in time:
//!    │ not    │ kick or event               ▼ kicks on, look once more
//!    │ worth  │                 ┌───────────────────────┐
//!    │ it     └──────────────── │ asleep                │
//!    └────────────────────────▶ │ kicks are on          │
//!                               └───────────────────────┘
//! ```
//!
//! 1. A pause, from the end of work to the next work, is *short* if it takes up to twice the
//!    budget: the time that a poll covers, and the wake-up that it saves.
//! 2. The device polls if it expects a short pause: if the pauses that followed one of the same
//!    kind as the last were mostly short. So it learns bursts, and polls within a burst but not
//!    between bursts.
//! 3. Sleeps are measured just as polls are, so an idle or slow guest costs nothing, and the device
//!    needs no poll to find out that polling would pay.
//! 4. If a poll finds nothing and the sleep after it is short, polling itself may be keeping the
//!    other side off the processor. Such a poll costs about twice what a hit saves: if there is
//!    more than one per two hits, polls become exponentially rarer ([`MOST_DOUBT`]).
//! 5. The budget starts with the first look after the work, regardless of how long the work took.
//!
//! *Interrupts.* The device reports a filled buffer immediately, if the driver asks for it. A
//! report of taken packets helps only a driver that runs out of buffers, or has stopped sending: so
//! one interrupt for a batch is enough while the device is awake and the guest sends. See
//! [`Batch`].

use std::time::Duration;

use vsock_proto::Tick;

use crate::suppression::Kicks;

/// The highest doubt at which the device skips no poll.
const TOLERATED: u8 = 3;
/// How much a poll that hinders adds to the doubt. Each hit subtracts one.
const HINDRANCE: u8 = 2;
/// The highest doubt. The device then polls in one of 256 pauses that promise a hit.
const MOST_DOUBT: u8 = TOLERATED + 8;
/// The highest confidence that a pause will be short; below it, the lowest that is enough to poll.
const SURE: u8 = 3;
const LIKELY: u8 = 2;

/// A batch of used packets is due when it fills this fraction of the queue: a quarter.
const PART_OF_QUEUE: usize = 4;
/// The longest wait of the first packet of a batch, if the guest never stops sending.
const LONGEST_BATCH: Duration = Duration::from_millis(2);

/// The state of the notifications between two calls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Notifications {
    pub(crate) rx_kicks: Kicks,
    pub(crate) tx_kicks: Kicks,
    pub(crate) polling: Polling,
    pub(crate) taken: Batch,
}

impl Notifications {
    /// Creates the state for queues that are new or that another device has served. Polls last for
    /// `poll_budget`.
    pub(crate) const fn new(poll_budget: Duration) -> Self {
        Self {
            rx_kicks: Kicks::Unknown,
            tx_kicks: Kicks::Unknown,
            polling: Polling::new(poll_budget),
            taken: Batch::EMPTY,
        }
    }

    /// Starts again with other queues, or without queues.
    pub(crate) const fn restart(&mut self) {
        *self = Self::new(self.polling.budget);
    }

    /// Whether to report the taken packets to the driver now, in a queue of this size.
    pub(crate) fn is_batch_due(&self, now: Tick, size: u16) -> bool {
        self.polling.is_asleep() || self.taken.is_due(now, size, self.polling.budget)
    }
}

/// Whether a call of the device moved anything.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Moved {
    Nothing,
    Something,
}

/// The decision when to poll.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Polling {
    budget: Duration,
    state: State,
    /// The kind of the last pause.
    last: Pause,
    /// The confidence that a short pause follows, by the kind of the last pause.
    confidence: [u8; 2],
    /// Grows by [`HINDRANCE`] with each poll that hinders, and shrinks with each hit.
    doubt: u8,
    /// The pauses since the last poll that promised a hit but were not polled.
    skipped: u16,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// Nothing is known about earlier work.
    New,
    /// The last call moved something, and the next one looks for more.
    Working,
    /// The device has polled since then without finding anything.
    Polling { since: Tick },
    /// The work ended then, without a poll after it.
    Asleep { since: Tick },
    /// A poll ended then without finding anything.
    AsleepAfterPoll { since: Tick },
}

/// The time between two pieces of work.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Pause {
    Short,
    Long,
}

impl Polling {
    const fn new(budget: Duration) -> Self {
        Self {
            budget,
            state: State::New,
            last: Pause::Long,
            confidence: [LIKELY; 2],
            doubt: 0,
            skipped: 0,
        }
    }

    const fn is_asleep(&self) -> bool {
        !matches!(self.state, State::Working | State::Polling { .. })
    }

    /// Decides at the end of a call. Returns until when to poll, or `None` if the device should
    /// turn kicks on, look once more, and sleep.
    pub(crate) fn next(&mut self, now: Tick, moved: Moved) -> Option<Tick> {
        self.state = match moved {
            Moved::Nothing => self.state.idle(now, self.budget),
            Moved::Something => {
                self.learn(now);
                if self.pays() {
                    State::Working
                } else {
                    State::Asleep { since: now }
                }
            }
        };
        let since = match self.state {
            State::Working => now,
            State::Polling { since } => since,
            State::New | State::Asleep { .. } | State::AsleepAfterPoll { .. } => return None,
        };
        Some(since.saturating_add(self.budget))
    }

    /// Learns from the pause that has just ended, if there was one.
    fn learn(&mut self, now: Tick) {
        let short = self.budget.saturating_mul(2);
        let pause = match self.state {
            // There was no pause.
            State::New | State::Working => return,
            // A hit.
            State::Polling { .. } => {
                self.doubt = self.doubt.saturating_sub(1);
                Pause::Short
            }
            // Work came soon after a poll that found nothing: the poll may have delayed it. The
            // length of this pause is no evidence about the guest, so the confidence stays.
            State::AsleepAfterPoll { since } if now.since(since) <= short => {
                self.doubt = MOST_DOUBT.min(self.doubt + HINDRANCE);
                return;
            }
            State::Asleep { since } if now.since(since) <= short => Pause::Short,
            State::Asleep { .. } | State::AsleepAfterPoll { .. } => Pause::Long,
        };
        let confidence = &mut self.confidence[self.last as usize];
        *confidence = match pause {
            Pause::Short => SURE.min(*confidence + 1),
            Pause::Long => confidence.saturating_sub(1),
        };
        self.last = pause;
    }

    /// Whether to poll after this work.
    fn pays(&mut self) -> bool {
        if self.budget.is_zero() || self.confidence[self.last as usize] < LIKELY {
            return false;
        }
        self.skipped += 1;
        // Beyond the tolerated doubt, each step halves the polls: one of 2, 4, ... 256.
        let is_turn = self.skipped >= 1 << self.doubt.saturating_sub(TOLERATED);
        if is_turn {
            self.skipped = 0;
        }
        is_turn
    }
}

impl State {
    /// Returns the state after a call that found nothing.
    fn idle(self, now: Tick, budget: Duration) -> Self {
        match self {
            Self::Working => Self::Polling { since: now },
            Self::Polling { since } if now.since(since) >= budget => {
                Self::AsleepAfterPoll { since: now }
            }
            state => state,
        }
    }
}

/// Packets that the device has taken and not yet reported to the driver.
///
/// The device reports them when it goes to sleep, when the guest has sent nothing for the duration
/// of a poll, when they fill a quarter of the queue, or after two milliseconds. So the driver never
/// runs out of buffers for lack of an interrupt. As for any batch, the device then checks whether
/// the driver wants an interrupt (virtio 1.3, 2.7.7.2).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Batch {
    chains: u16,
    descriptors: usize,
    /// When the first and the last packet were taken.
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

    /// Adds taken packets with this many chains and descriptors.
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

    /// Empties the batch, and returns how many chains to report now.
    pub(crate) fn take(&mut self) -> u16 {
        std::mem::replace(self, Self::EMPTY).chains
    }

    fn is_due(&self, now: Tick, size: u16, pause: Duration) -> bool {
        self.descriptors.saturating_mul(PART_OF_QUEUE) >= size.into()
            || now.since(self.last) >= pause
            || now.since(self.first) >= LONGEST_BATCH
    }
}
