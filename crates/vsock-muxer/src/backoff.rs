// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::time::Duration;

use vsock_proto::Tick;

/// The time of the next attempt after a failure: 10 ms later at first, then twice as long each
/// time, up to 100 ms.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    wait: Duration,
    at: Tick,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(10);
    const LONGEST: Duration = Duration::from_millis(100);

    /// Returns the pause after a first failure, or after another failure following `before`.
    pub(crate) fn after(before: Option<Self>, now: Tick) -> Self {
        let wait = before.map_or(Self::FIRST, |before| {
            before.wait.saturating_mul(2).min(Self::LONGEST)
        });
        Self {
            wait,
            at: now.saturating_add(wait),
        }
    }

    /// Returns a pause that is already over, for work that was only postponed to be fair to others.
    pub(crate) const fn over(now: Tick) -> Self {
        Self {
            wait: Self::FIRST,
            at: now,
        }
    }

    /// Returns the time of the next attempt.
    pub(crate) const fn at(self) -> Tick {
        self.at
    }
}

#[cfg(test)]
mod tests {
    use super::Backoff;
    use vsock_proto::Tick;

    #[test]
    fn pauses_double_up_to_a_tenth_of_a_second() {
        let mut backoff = None;
        let mut now = Tick::ZERO;
        let mut pauses = Vec::new();
        for _ in 0..6 {
            let next = Backoff::after(backoff, now);
            pauses.push(next.at().since(now).as_millis());
            now = next.at();
            backoff = Some(next);
        }
        assert_eq!(pauses, [10, 20, 40, 80, 100, 100]);
    }
}
