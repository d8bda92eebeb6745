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

/// So many descriptors, or more, a guest uses from answer to answer if it does not wait for each.
const STREAM: usize = 8;

/// How many notifications are given at once to a guest for which it was in vain to hold one back; twice as
/// many each time that it is so again when these have been given, up to so many.
pub(crate) const PROMPT: usize = 256;
pub(crate) const MOST_PROMPT: usize = 4096;

/// A notification that the guest is owed.
#[derive(Clone, Copy, Debug, Default)]
struct Owed {
    /// When it is given at the latest; `None` if by the next call, whenever that is.
    due: Option<Tick>,
    /// Descriptors that were used.
    used: usize,
    /// It was held back, not only found to be owed.
    is_held: bool,
}

/// What becomes of a notification.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    /// There is none to give.
    Nothing,
    Later,
    /// It may not wait, or no longer, also because a quarter of the ring is used.
    Now,
    /// It has waited for so long as it may, and that made no batch.
    Overdue,
}

impl Verdict {
    /// Whether the guest is notified.
    pub(crate) const fn notifies(self) -> bool {
        matches!(self, Self::Now | Self::Overdue)
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
        let is_due = owed.due.is_none_or(|due| due <= now);
        let is_batch = owed.used.saturating_mul(PART) >= size.into();
        if is_due && owed.is_held && !is_batch {
            return Verdict::Overdue;
        }
        if is_due || is_batch || !may_wait {
            return Verdict::Now;
        }
        owed.is_held = true;
        self.owed = Some(owed);
        Verdict::Later
    }
}

/// Of the transmit queue: packets that were taken.
///
/// A guest that streams to the host wants its buffers back, but has others, and does better without an
/// interrupt for each. So its notifications wait, where that makes one of many:
///
/// - A guest that waits for answers is notified at once: it sleeps until the answer comes, and this interrupt
///   has it awake by then. It is one that sends little between two notifications of answers.
/// - One that does not use a quarter of its ring within the delay sends too little to gain by it, or waits
///   for its buffers. It is notified at once the next times.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TxNotifications {
    delayed: Delayed,
    /// Descriptors that the guest has used since it was notified of an answer, and before that since the
    /// last but one. At first it gets none.
    since_answer: usize,
    before_answer: usize,
    /// How many notifications that could wait are still given at once.
    prompt: usize,
    /// How many the next time.
    next_prompt: usize,
}

impl TxNotifications {
    pub(crate) const fn new(delay: Duration) -> Self {
        Self {
            delayed: Delayed::new(delay),
            since_answer: 0,
            before_answer: STREAM,
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

    /// The guest is notified of something that it may have waited for.
    pub(crate) const fn on_answer(&mut self) {
        self.before_answer = self.since_answer;
        self.since_answer = 0;
    }

    /// Whether the guest is notified now; see [`Delayed::decide`].
    pub(crate) fn decide(&mut self, now: Tick, wanted: bool, used: usize, size: u16) -> bool {
        self.since_answer = self.since_answer.saturating_add(used);
        let streams = self.since_answer.max(self.before_answer) >= STREAM;
        let may_wait = streams && self.prompt == 0;
        let verdict = self.delayed.decide(now, wanted, used, size, may_wait);
        match verdict {
            Verdict::Now if may_wait => self.next_prompt = PROMPT,
            Verdict::Now if streams => self.prompt -= 1,
            Verdict::Overdue if streams => {
                self.prompt = self.next_prompt;
                self.next_prompt = MOST_PROMPT.min(self.next_prompt * 2);
            }
            // It was not tried: the guest waits for answers.
            Verdict::Now | Verdict::Overdue => {}
            Verdict::Nothing | Verdict::Later => {}
        }
        verdict.notifies()
    }
}
