// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use crate::{Config, Credit, Tick};

/// How often the time between two questions doubles at most.
const MAX_DOUBLINGS: u32 = 6;

/// Asks the guest for credit on behalf of the far one.
///
/// A guest tells of what it has taken when *it* thinks that there is little room. The far one may
/// think so earlier, for it may count by a buffer of its own that is smaller, or may wait with a
/// message that needs more room than there seems to be; so the guest is asked, ever more rarely
/// while it has no news.
#[derive(Debug, Default)]
pub(super) struct FarNeed {
    at: Option<Tick>,
    asked: u32,
    /// What the guest had told when it was asked last.
    answered: u32,
}

impl FarNeed {
    /// Notes that the far guest is short of credit, or is not; returns whether the guest shall be
    /// asked now.
    pub(super) fn ask(&mut self, now: Tick, short: bool, credit: Credit, config: &Config) -> bool {
        if !short {
            *self = Self::default();
            return false;
        }
        if self.at.is_some_and(|at| now < at) {
            return false;
        }
        if self.answered != credit.fwd_cnt {
            (self.asked, self.answered) = (0, credit.fwd_cnt);
        }
        let interval = config.probe_interval().saturating_mul(1 << self.asked);
        self.at = Some(now.saturating_add(interval));
        self.asked = self.asked.saturating_add(1).min(MAX_DOUBLINGS);
        true
    }

    /// When to ask again.
    pub(super) const fn at(&self) -> Option<Tick> {
        self.at
    }
}
