// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The timers of the streams: idle limits and those of handlers.

use std::time::Instant;

use super::{Phase, Streams};
use crate::entry::Entry;
use crate::{StreamFailure, StreamId};

impl<T> Streams<T> {
    /// Records that a byte was transferred.
    pub(super) fn touch(&mut self, id: StreamId) {
        if self.limits.idle.is_some() {
            if let Some(entry) = self.table.get_mut(id) {
                entry.active = Instant::now();
            }
        }
    }

    /// When a stream must be looked at next.
    fn due(&self, entry: &Entry<T>) -> Option<Instant> {
        let idle = self.limits.idle;
        let idle = idle.and_then(|idle| entry.active.checked_add(idle));
        [idle, entry.deadline].into_iter().flatten().min()
    }

    /// Makes sure that a stream is looked at in time. Looking too early costs little, so entries of
    /// the heap that have become too early are not removed.
    pub(super) fn schedule(&mut self, id: StreamId) {
        let Some(at) = self.table.get(id).and_then(|entry| self.due(entry)) else {
            return;
        };
        let Some(entry) = self.table.get_mut(id) else {
            return;
        };
        if entry.wake.is_none_or(|wake| at < wake) {
            entry.wake = Some(at);
            self.deadlines.push(at, id);
            let table = &self.table;
            self.deadlines.tidy(table.len(), |at, id| {
                table.get(id).is_some_and(|entry| entry.wake == Some(at))
            });
            self.arm();
        }
    }

    /// Sets the timer for the next deadline.
    pub(crate) fn arm(&mut self) {
        if let Some(at) = self.next_moment() {
            if let Err(error) = self.timer.fire_by(at) {
                self.keep(error);
            }
        }
    }

    fn next_moment(&self) -> Option<Instant> {
        let end = match self.phase {
            Phase::Draining(until) => until,
            Phase::Serving | Phase::Stopped => None,
        };
        let moments = [self.deadlines.next(), end];
        moments.into_iter().flatten().min()
    }

    /// Called when the timer has fired: a drain may have taken too long.
    pub(crate) fn timer_fired(&mut self, now: Instant) {
        self.timer.fired();
        match self.phase {
            Phase::Draining(Some(until)) if until <= now => self.stop(),
            _ => {}
        }
    }

    /// Returns the next stream whose own timer is due. A stream that was idle for too long fails.
    pub(crate) fn next_due(&mut self, now: Instant) -> Option<StreamId> {
        while let Some((at, id)) = self.deadlines.pop_due(now) {
            let Some(entry) = self.table.get_mut(id) else {
                continue;
            };
            if entry.wake != Some(at) {
                continue;
            }
            entry.wake = None;
            let expired = entry.deadline.is_some_and(|deadline| deadline <= now);
            if expired {
                entry.deadline = None;
            }
            let limit = self.limits.idle;
            let idle =
                limit.is_some_and(|idle| now.saturating_duration_since(entry.active) >= idle);
            if idle {
                entry.active = now; // told once
                self.counters.timers += 1;
                self.fail(id, StreamFailure::Idle);
            }
            self.schedule(id);
            if expired && !idle {
                self.counters.timers += 1;
                return Some(id);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use vsock_inner::VsockInnerStream;

    use super::Streams;
    use crate::deadlines::SLACK;
    use crate::{StreamId, StreamLimits};

    fn streams() -> Streams<()> {
        Streams::new(StreamLimits::default()).unwrap()
    }

    fn add(streams: &mut Streams<()>) -> (VsockInnerStream, StreamId) {
        let (host, device) = VsockInnerStream::pair().unwrap();
        (host, streams.add(Box::new(device), ()).unwrap())
    }

    fn seconds(seconds: u64) -> Option<Duration> {
        Some(Duration::from_secs(seconds))
    }

    #[test]
    fn resetting_timers_leaves_a_limited_number_of_entries() {
        let mut streams = streams();
        let (_host, id) = add(&mut streams);
        for step in 1..10_000 {
            streams.set_timer(id, seconds(100_000 - step));
            assert!(streams.deadlines.len() <= 2 + SLACK);
        }
    }

    #[test]
    fn timers_of_closed_streams_leave_a_limited_number_of_entries() {
        let mut streams = streams();
        for _ in 0..1000 {
            let (_host, id) = add(&mut streams);
            streams.set_timer(id, seconds(100_000));
            streams.close(id);
            assert!(streams.deadlines.len() <= 2 + SLACK);
        }
    }

    #[test]
    fn a_replaced_timer_is_checked_once_and_leaves_no_entry() {
        let mut streams = streams();
        let (_host, id) = add(&mut streams);
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        streams.set_timer(id, seconds(200));
        streams.set_timer(id, seconds(100)); // replaces 200
        assert_eq!(streams.next_due(at(150)), Some(id));
        streams.set_timer(id, seconds(300));
        assert_eq!(streams.deadlines.len(), 2);
        assert_eq!(streams.next_due(at(250)), None);
        assert_eq!(streams.deadlines.len(), 1);
        assert_eq!(streams.next_due(at(350)), Some(id));
        assert_eq!(streams.deadlines.len(), 0);
    }
}
