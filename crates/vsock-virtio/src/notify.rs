// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Notifications of the guest that wait a while, because it can do without them for so long.
//!
//! A notification interrupts the guest, and costs the device a system call and the wake-up of the VMM's
//! thread. One that is held back is owed: it is given when its time has come, or before, when a
//! quarter of the ring is used. The driver is asked whether it wants one when the chains are used, and
//! not again: a driver that has turned notifications off looks at the ring before it turns them on.

use std::time::Duration;

use vsock_proto::Tick;

use crate::chain::DESCRIPTOR_COST;

/// The part of a ring of which the guest is told at once.
const PART: usize = 4;

/// How many notifications are given at once to a guest that was seen to wait for one.
const PROMPT: u32 = 256;

/// A notification that the guest is owed.
#[derive(Clone, Copy, Debug)]
struct Owed {
    until: Tick,
    /// Descriptors that were used.
    used: usize,
    /// Calls in which they were.
    calls: u32,
    /// It was said to the device that the time has come. No timer is needed any more.
    is_ripe: bool,
}

/// What becomes of a notification.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Verdict {
    /// There is none to give.
    Nothing,
    Later,
    /// It was not held back, or the ring was used up so far.
    Now,
    /// It has waited for so long as it may; so many calls have used chains meanwhile.
    Overdue(u32),
}

/// The notifications of one queue.
#[derive(Clone, Copy, Debug)]
struct Delayed {
    delay: Duration,
    owed: Option<Owed>,
}

impl Delayed {
    const fn new(delay: Duration) -> Self {
        Self { delay, owed: None }
    }

    fn due(&self) -> Option<Tick> {
        self.owed
            .filter(|owed| !owed.is_ripe)
            .map(|owed| owed.until)
    }

    fn on_timeout(&mut self, now: Tick) {
        if let Some(owed) = &mut self.owed {
            owed.is_ripe |= owed.until <= now;
        }
    }

    /// The ring is another one, or none. What was used in it before, the guest may not know of.
    fn restart(&mut self, now: Tick, was_used: bool) {
        self.owed = was_used.then_some(Owed {
            until: now,
            used: 0,
            calls: 0,
            is_ripe: true,
        });
    }

    /// Decides after a call in which `used` descriptors of `size` were used, of which the driver wants
    /// to be notified or not.
    fn decide(
        &mut self,
        now: Tick,
        wanted: bool,
        used: usize,
        size: u16,
        may_wait: bool,
    ) -> Verdict {
        if !wanted && self.owed.is_none() {
            return Verdict::Nothing;
        }
        let mut owed = self.owed.take().unwrap_or_else(|| Owed {
            until: now.saturating_add(self.delay),
            used: 0,
            calls: 0,
            is_ripe: false,
        });
        owed.used = owed.used.saturating_add(used);
        owed.calls = owed.calls.saturating_add((used > 0).into());
        if owed.until <= now {
            return Verdict::Overdue(owed.calls);
        }
        if !may_wait || owed.used.saturating_mul(PART) >= size.into() {
            return Verdict::Now;
        }
        self.owed = Some(owed);
        Verdict::Later
    }
}

/// Of the transmit queue: packets that were taken.
///
/// A guest wants its buffers back, but a driver that has others does not wait for these. One that
/// does wait is recognised: it sends nothing while the notification is held back, and something soon
/// after. It gets the next ones at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TxNotifications {
    delayed: Delayed,
    /// When a guest was notified that had sent nothing meanwhile.
    released: Option<Tick>,
    /// How many are still given at once.
    prompt: u32,
}

impl TxNotifications {
    pub(crate) const fn new(delay: Duration) -> Self {
        Self {
            delayed: Delayed::new(delay),
            released: None,
            prompt: 0,
        }
    }

    /// The ring is another one, or none. If chains of it were used before, the guest is notified at the
    /// next occasion.
    pub(crate) fn restart(&mut self, now: Tick, was_used: bool) {
        *self = Self::new(self.delayed.delay);
        self.delayed.restart(now, was_used);
    }

    /// When the guest is to be notified at the latest.
    pub(crate) fn due(&self) -> Option<Tick> {
        self.delayed.due()
    }

    /// Lets what is due be given by the next call of the device.
    pub(crate) fn on_timeout(&mut self, now: Tick) {
        self.delayed.on_timeout(now);
    }

    /// Whether the guest is notified now, after a call in which chains were taken whose descriptors
    /// cost so much.
    pub(crate) fn decide(&mut self, now: Tick, wanted: bool, cost: usize, size: u16) -> bool {
        if cost > 0
            && let Some(released) = self.released.take()
            && now.since(released) < self.delayed.delay
        {
            self.prompt = PROMPT;
        }
        let used = cost.div_ceil(DESCRIPTOR_COST);
        let may_wait = self.prompt == 0;
        match self.delayed.decide(now, wanted, used, size, may_wait) {
            Verdict::Nothing | Verdict::Later => false,
            Verdict::Now => {
                self.prompt = self.prompt.saturating_sub(1);
                true
            }
            Verdict::Overdue(calls) => {
                self.released = (calls == 1).then_some(now);
                true
            }
        }
    }
}

/// Of the receive queue: buffers that were filled. Whether the guest has others to read before, the
/// muxer knows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RxNotifications(Delayed);

impl RxNotifications {
    pub(crate) const fn new(delay: Duration) -> Self {
        Self(Delayed::new(delay))
    }

    /// As of [`TxNotifications::restart`].
    pub(crate) fn restart(&mut self, now: Tick, was_used: bool) {
        self.0.restart(now, was_used);
    }

    /// When the guest is to be notified at the latest.
    pub(crate) fn due(&self) -> Option<Tick> {
        self.0.due()
    }

    /// As of [`TxNotifications::on_timeout`].
    pub(crate) fn on_timeout(&mut self, now: Tick) {
        self.0.on_timeout(now);
    }

    /// Whether the guest is notified now, after a call that has used so many chains; and whether it
    /// knows of all of them then.
    pub(crate) fn decide(
        &mut self,
        now: Tick,
        wanted: bool,
        used: u16,
        size: u16,
        may_wait: bool,
    ) -> (bool, bool) {
        let verdict = self.0.decide(now, wanted, used.into(), size, may_wait);
        let notify = matches!(verdict, Verdict::Now | Verdict::Overdue(_));
        (notify, verdict != Verdict::Later)
    }
}
