// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Notifications of the guest that wait a while, because it can do without them for so long.
//!
//! A notification interrupts the guest, and costs the device a system call and the wake-up of the VMM's
//! thread. One that is held back is owed: it is given when its time has come, or before, when a
//! quarter of the ring is used. The driver is asked whether it wants one when the chains are used, and
//! not again: a driver that has turned notifications off looks at the ring before it turns them on.

use std::time::Duration;

use vsock_proto::Tick;

/// The part of a ring of which the guest is told at once.
const PART: usize = 4;

/// How many notifications are given at once to a guest that was seen to wait for one.
const PROMPT: u32 = 256;

/// A notification that the guest is owed.
#[derive(Clone, Copy, Debug, Default)]
struct Owed {
    /// When it is given at the latest; `None` if by the next call, whenever that is.
    due: Option<Tick>,
    /// Descriptors that were used.
    used: usize,
    /// Calls in which they were.
    calls: u32,
}

/// What becomes of a notification.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    /// There is none to give.
    Nothing,
    Later,
    /// It was not held back, or the ring was used up so far.
    Now,
    /// It has waited for so long as it may; so many calls have used chains meanwhile.
    Overdue(u32),
}

impl Verdict {
    /// Whether the guest is notified.
    pub(crate) const fn notifies(self) -> bool {
        matches!(self, Self::Now | Self::Overdue(_))
    }
}

/// The notifications of one queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Delayed {
    delay: Duration,
    owed: Option<Owed>,
}

impl Delayed {
    pub(crate) const fn new(delay: Duration) -> Self {
        Self { delay, owed: None }
    }

    /// When the guest is to be notified at the latest.
    pub(crate) fn due(&self) -> Option<Tick> {
        self.owed.and_then(|owed| owed.due)
    }

    /// Leaves what is due to the next call, so that no timer fires again and again until then.
    pub(crate) fn on_timeout(&mut self, now: Tick) {
        if let Some(owed) = &mut self.owed {
            owed.due = owed.due.filter(|&due| due > now);
        }
    }

    /// The ring is another one, or none. If chains of it were used before, the guest may not know of them,
    /// and is notified by the next call.
    pub(crate) fn restart(&mut self, was_used: bool) {
        self.owed = was_used.then(Owed::default);
    }

    /// Decides after a call in which `used` descriptors of `size` were used, of which the driver wants
    /// to be notified or not.
    pub(crate) fn decide(
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
            due: Some(now.saturating_add(self.delay)),
            ..Owed::default()
        });
        owed.used = owed.used.saturating_add(used);
        owed.calls = owed.calls.saturating_add((used > 0).into());
        if owed.due.is_none_or(|due| due <= now) {
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

    /// As of [`Delayed::restart`]; and the driver may be another one.
    pub(crate) fn restart(&mut self, was_used: bool) {
        *self = Self::new(self.delayed.delay);
        self.delayed.restart(was_used);
    }

    /// As of [`Delayed::due`].
    pub(crate) fn due(&self) -> Option<Tick> {
        self.delayed.due()
    }

    /// As of [`Delayed::on_timeout`].
    pub(crate) fn on_timeout(&mut self, now: Tick) {
        self.delayed.on_timeout(now);
    }

    /// Whether the guest is notified now; see [`Delayed::decide`].
    pub(crate) fn decide(&mut self, now: Tick, wanted: bool, used: usize, size: u16) -> bool {
        if used > 0
            && let Some(released) = self.released.take()
            && now.since(released) < self.delayed.delay
        {
            self.prompt = PROMPT;
        }
        let may_wait = self.prompt == 0;
        let verdict = self.delayed.decide(now, wanted, used, size, may_wait);
        match verdict {
            Verdict::Nothing | Verdict::Later => {}
            Verdict::Now => self.prompt = self.prompt.saturating_sub(1),
            Verdict::Overdue(calls) => self.released = (calls == 1).then_some(now),
        }
        verdict.notifies()
    }
}
