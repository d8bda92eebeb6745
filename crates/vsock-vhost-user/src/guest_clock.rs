// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The guest's clock. It stops while the guest is paused, so that the guest does not miss deadlines
//! that it had no chance to meet.

use std::time::Duration;

use vsock_proto::Tick;

/// A clock that can be stopped. At first it runs and shows the event loop's time.
#[derive(Debug, Default)]
pub(crate) struct GuestClock {
    /// The total time that it was stopped, without the current stop.
    stood: Duration,
    /// The event loop's time when the clock was stopped, if it is stopped.
    stopped: Option<Tick>,
}

impl GuestClock {
    /// Converts the event loop's time to the guest's.
    pub(crate) fn at(&self, now: Tick) -> Tick {
        let now = self.stopped.unwrap_or(now);
        Tick::ZERO.saturating_add(now.since(Tick::ZERO).saturating_sub(self.stood))
    }

    /// Converts the guest's time to the event loop's; `None` while the clock is stopped.
    pub(crate) fn when(&self, guest: Tick) -> Option<Tick> {
        let runs = self.stopped.is_none();
        runs.then(|| guest.saturating_add(self.stood))
    }

    pub(crate) fn stop(&mut self, now: Tick) {
        self.stopped = self.stopped.or(Some(now));
    }

    pub(crate) fn run(&mut self, now: Tick) {
        if let Some(stopped) = self.stopped.take() {
            self.stood = self.stood.saturating_add(now.since(stopped));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tick(seconds: u64) -> Tick {
        Tick::ZERO.saturating_add(Duration::from_secs(seconds))
    }

    #[test]
    fn t108_the_time_of_a_pause_does_not_count_for_the_guest() {
        let mut clock = GuestClock::default();
        assert_eq!(clock.at(tick(5)), tick(5));
        assert_eq!(clock.when(tick(9)), Some(tick(9)));
        clock.stop(tick(6));
        clock.stop(tick(8));
        assert_eq!(clock.at(tick(10)), tick(6));
        assert_eq!(clock.when(tick(9)), None);
        clock.run(tick(100));
        clock.run(tick(101));
        assert_eq!(clock.at(tick(102)), tick(8));
        assert_eq!(clock.when(tick(9)), Some(tick(103)));
        clock.stop(tick(103));
        clock.run(tick(110));
        assert_eq!(clock.at(tick(110)), tick(9));
        assert_eq!(clock.when(Tick::MAX), Some(Tick::MAX));
    }
}
