// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::time::Duration;

use thiserror::Error;

/// The most streams that a loop can be allowed, and the most events or connections in one wake-up:
/// 2^24.
const MOST: usize = 1 << 24;

/// The largest number of bytes for a backlog or a turn: 1 GiB.
const MOST_BYTES: usize = 1 << 30;

/// The shortest time that a limit can be: 1 ms.
const SHORTEST: Duration = Duration::from_millis(1);

/// How a loop asks the kernel for readiness.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Trigger {
    /// What is ready is reported for as long as it is ready.
    #[default]
    Level,
    /// Each change is reported once (`EPOLLET`); the loop remembers which streams have more to do.
    Edge,
}

/// A setter of the same name for each field.
macro_rules! setters {
    ($($field:ident: $type:ty),+ $(,)?) => {$(
        #[doc = concat!("Sets [`", stringify!($field), "`](Self#structfield.", stringify!($field), ").")]
        #[must_use]
        pub const fn $field(mut self, $field: $type) -> Self {
            self.$field = $field;
            self
        }
    )+};
}

/// What a loop of streams may use. Every field is checked when the loop is made.
///
/// ```
/// use std::time::Duration;
/// use vsock_epoll::StreamLimits;
///
/// let limits = StreamLimits::default().streams(100).idle(Some(Duration::from_secs(60)));
/// assert_eq!(limits.backlog, 64 * 1024);
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct StreamLimits {
    /// How many streams there may be at a time: 1 to 2^24; 65,536 by default.
    pub streams: usize,
    /// How many bytes of a stream the loop keeps that the stream has refused: 1 to 1 GiB; 64 KiB by
    /// default. The worst case of a loop's memory is `streams` times this.
    pub backlog: usize,
    /// How many bytes a stream may be read in one turn, before others are served: 1 to 1 GiB; 256
    /// KiB by default.
    pub turn: usize,
    /// How many events are served in one wake-up, before the VMM's other devices have theirs: 1 to
    /// 2^24; 256 by default.
    pub events: usize,
    /// After how long without a byte a stream has failed: at least 1 ms; `None`, never, by default.
    pub idle: Option<Duration>,
    /// How the kernel is asked.
    pub trigger: Trigger,
}

impl Default for StreamLimits {
    fn default() -> Self {
        Self {
            streams: 1 << 16,
            backlog: 64 * 1024,
            turn: 256 * 1024,
            events: 256,
            idle: None,
            trigger: Trigger::Level,
        }
    }
}

impl StreamLimits {
    setters! {
        streams: usize,
        backlog: usize,
        turn: usize,
        events: usize,
        idle: Option<Duration>,
        trigger: Trigger,
    }

    pub(crate) fn check(&self) -> Result<(), LimitError> {
        within("streams", self.streams, MOST)?;
        within("backlog", self.backlog, MOST_BYTES)?;
        within("turn", self.turn, MOST_BYTES)?;
        within("events", self.events, MOST)?;
        self.idle.map_or(Ok(()), |idle| long_enough("idle", idle))
    }
}

/// What serving a backend may use. Every field is checked when the subscriber is made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct AcceptLimits {
    /// How many connections are accepted in one wake-up: 1 to 2^24; 64 by default.
    pub batch: usize,
    /// How long nothing is accepted after the backend has lacked a resource, or has failed and
    /// given nothing: at least 1 ms; 100 ms by default. Without it a full table of descriptors
    /// would spin.
    pub pause: Duration,
}

impl Default for AcceptLimits {
    fn default() -> Self {
        Self {
            batch: 64,
            pause: Duration::from_millis(100),
        }
    }
}

impl AcceptLimits {
    setters! {
        batch: usize,
        pause: Duration,
    }

    pub(crate) fn check(&self) -> Result<(), LimitError> {
        within("batch", self.batch, MOST)?;
        long_enough("pause", self.pause)
    }
}

/// A limit that cannot be.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum LimitError {
    /// A number is zero, or too large.
    #[error("`{name}` is {value}; it must be 1 to {most}")]
    OutOfRange {
        /// The field.
        name: &'static str,
        /// What it was.
        value: usize,
        /// The most that it may be.
        most: usize,
    },
    /// A time is too short.
    #[error("`{name}` is {value:?}; it must be at least 1 ms")]
    TooShort {
        /// The field.
        name: &'static str,
        /// What it was.
        value: Duration,
    },
}

fn within(name: &'static str, value: usize, most: usize) -> Result<(), LimitError> {
    if (1..=most).contains(&value) {
        Ok(())
    } else {
        Err(LimitError::OutOfRange { name, value, most })
    }
}

fn long_enough(name: &'static str, value: Duration) -> Result<(), LimitError> {
    if value < SHORTEST {
        Err(LimitError::TooShort { name, value })
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{AcceptLimits, StreamLimits};

    #[test]
    fn every_limit_has_both_of_its_edges() {
        let limits = StreamLimits::default();
        let good = [
            limits,
            limits.streams(1).backlog(1).turn(1).events(1),
            limits.streams(1 << 24).backlog(1 << 30).turn(1 << 30),
            limits.idle(Some(Duration::from_millis(1))),
        ];
        for limits in good {
            assert_eq!(limits.check(), Ok(()));
        }
        let bad = [
            limits.streams(0),
            limits.streams((1 << 24) + 1),
            limits.backlog(0),
            limits.backlog((1 << 30) + 1),
            limits.turn(0),
            limits.events(0),
            limits.idle(Some(Duration::from_micros(999))),
        ];
        for limits in bad {
            limits.check().unwrap_err();
        }
        assert_eq!(AcceptLimits::default().check(), Ok(()));
        AcceptLimits::default().batch(0).check().unwrap_err();
        let never = AcceptLimits::default().pause(Duration::ZERO);
        never.check().unwrap_err();
    }
}
