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

/// How many notifications are given at once to a guest that was seen to wait for one; twice as many each
/// time that it is seen again when these have been given, up to so many.
const PROMPT: u32 = 256;
const MOST_PROMPT: u32 = 4096;

/// A notification that the guest is owed.
#[derive(Clone, Copy, Debug, Default)]
struct Owed {
    /// When it is given at the latest; `None` if by the next call, whenever that is.
    due: Option<Tick>,
    /// Descriptors that were used.
    used: usize,
    /// When the last of them was.
    last: Option<Tick>,
}

/// What becomes of a notification.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    /// There is none to give.
    Nothing,
    Later,
    /// It was not held back, or the ring was used up so far.
    Now,
    /// It has waited for so long as it may; in the last of that time, so much of it, nothing was used.
    Overdue(Duration),
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

    /// The ring is another one. What was used in it before, the guest may not know of: it is notified by the
    /// next call.
    pub(crate) fn restart(&mut self) {
        self.owed = Some(Owed::default());
    }

    /// There is no ring any more, and nothing owed.
    pub(crate) const fn stop(&mut self) {
        self.owed = None;
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
        if used > 0 {
            owed.last = Some(now);
        }
        if owed.due.is_none_or(|due| due <= now) {
            return Verdict::Overdue(owed.last.map_or(Duration::ZERO, |last| now.since(last)));
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
/// does wait, for one packet or for a few, is recognised: it falls silent while the notification is held
/// back, for half of that time at least, and sends something soon after. It gets the next ones at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TxNotifications {
    delayed: Delayed,
    /// When a guest was notified that had fallen silent.
    released: Option<Tick>,
    /// How many are still given at once.
    prompt: u32,
    /// How many the next time.
    next_prompt: u32,
}

impl TxNotifications {
    pub(crate) const fn new(delay: Duration) -> Self {
        Self {
            delayed: Delayed::new(delay),
            released: None,
            prompt: 0,
            next_prompt: PROMPT,
        }
    }

    /// As of [`Delayed::restart`]; and the driver may be another one.
    pub(crate) fn restart(&mut self) {
        self.stop();
        self.delayed.restart();
    }

    /// As of [`Delayed::stop`].
    pub(crate) const fn stop(&mut self) {
        *self = Self::new(self.delayed.delay);
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
            self.prompt = self.next_prompt;
            self.next_prompt = MOST_PROMPT.min(self.next_prompt * 2);
        }
        let may_wait = self.prompt == 0;
        let verdict = self.delayed.decide(now, wanted, used, size, may_wait);
        match verdict {
            Verdict::Overdue(silence) if silence >= self.delayed.delay / 2 => {
                self.released = Some(now);
            }
            Verdict::Now if !may_wait => self.prompt -= 1,
            // It did not wait.
            Verdict::Now | Verdict::Overdue(_) => self.next_prompt = PROMPT,
            Verdict::Nothing | Verdict::Later => {}
        }
        verdict.notifies()
    }
}
