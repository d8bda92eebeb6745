// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use crate::{Config, Credit, Tick};

/// How many times the interval between two requests doubles at most.
const MAX_DOUBLINGS: u32 = 6;

/// Requests credit from the guest on behalf of the far guest.
///
/// A guest reports what it has taken when *it* considers its free space small. The far guest may
/// need credit earlier: it may use a smaller buffer of its own for the calculation, or it may wait
/// to send a message that needs more room than it believes there is. The guest is therefore asked
/// for credit, at growing intervals while its answers bring nothing new.
#[derive(Debug, Default)]
pub(super) struct FarNeed {
    /// When the guest may be asked again.
    at: Option<Tick>,
    /// How many times in a row it was asked without news.
    asked: u32,
    /// The guest's `fwd_cnt` when it was last asked.
    answered: u32,
}

impl FarNeed {
    /// Records whether the far guest is short of credit. Returns whether to ask the guest now.
    pub(super) fn ask(&mut self, now: Tick, short: bool, credit: Credit, config: &Config) -> bool {
        if !short {
            *self = Self::default();
            return false;
        }
        if self.at.is_some_and(|at| now < at) {
            return false;
        }
        if self.answered != credit.fwd_cnt {
            // The guest has taken bytes since the last request: start again with short intervals.
            (self.asked, self.answered) = (0, credit.fwd_cnt);
        }
        let interval = config.probe_interval().saturating_mul(1 << self.asked);
        self.at = Some(now.saturating_add(interval));
        self.asked = self.asked.saturating_add(1).min(MAX_DOUBLINGS);
        true
    }

    /// Returns when to ask again.
    pub(super) const fn at(&self) -> Option<Tick> {
        self.at
    }
}
