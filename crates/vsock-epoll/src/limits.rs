// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::time::Duration;

use thiserror::Error;

/// The maximum number of streams of a loop, and of events or connections in one wake-up: 2^24.
const MOST: usize = 1 << 24;

/// The maximum number of bytes in a backlog or turn: 1 GiB.
const MOST_BYTES: usize = 1 << 30;

/// The shortest duration of a limit: 1 ms.
const SHORTEST: Duration = Duration::from_millis(1);

/// How a loop polls for readiness.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Trigger {
    /// A descriptor is reported for as long as it is ready.
    #[default]
    Level,
    /// Each change is reported once (`EPOLLET`). The loop remembers which streams have more to do.
    Edge,
}

/// Generates a setter of the same name for each field.
macro_rules! setters {
    ($($field:ident: $type:ty),+ $(,)?) => {$(
        #[doc = concat!(
            "Sets [`", stringify!($field), "`](Self#structfield.", stringify!($field), ").",
        )]
        #[must_use]
        pub const fn $field(mut self, $field: $type) -> Self {
            self.$field = $field;
            self
        }
    )+};
}

/// Limits of a loop of streams. Every field is checked when the loop is created.
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
    /// The maximum number of streams: 1 to 2^24. Default: 65,536.
    pub streams: usize,
    /// How many bytes the loop keeps for each stream while the stream cannot take them: 1 to 1 GiB.
    /// Default: 64 KiB. In the worst case, a loop uses `streams` times this much memory.
    pub backlog: usize,
    /// How many bytes of a stream are read in one turn, before others are served: 1 to 1 GiB.
    /// Default: 256 KiB.
    pub turn: usize,
    /// How many events are served in one wake-up, before the VMM's other devices are: 1 to 2^24.
    /// Default: 256.
    pub events: usize,
    /// How long a stream may transfer nothing before it fails: at least 1 ms. Default: `None`, no
    /// limit.
    pub idle: Option<Duration>,
    /// How the loop polls for readiness.
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

/// Limits of a subscriber that accepts. Every field is checked when the subscriber is created.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct AcceptLimits {
    /// How many connections are accepted in one wake-up: 1 to 2^24. Default: 64.
    pub batch: usize,
    /// How long to pause when the source lacks a resource, or fails without supplying any
    /// connection: at least 1 ms. Default: 100 ms. Without a pause, the loop would spin while the
    /// process has no free descriptors.
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

/// A limit that is out of range.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum LimitError {
    /// A number is zero, or too large.
    #[error("invalid value for `{name}`: expected 1 to {most}, found {value}")]
    OutOfRange {
        /// The name of the field.
        name: &'static str,
        /// Its value.
        value: usize,
        /// The largest valid value.
        most: usize,
    },
    /// A duration is too short.
    #[error("invalid value for `{name}`: expected at least 1 ms, found {value:?}")]
    TooShort {
        /// The name of the field.
        name: &'static str,
        /// Its value.
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
    fn every_limit_accepts_its_bounds_and_rejects_values_beyond() {
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
