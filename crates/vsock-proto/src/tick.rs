// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use core::time::Duration;

/// A point in monotonic time, in nanoseconds since an origin that the caller chooses.
///
/// This crate reads no clock: the caller passes the time in. An event loop saves an `Instant` when
/// it starts and uses `Tick::ZERO.saturating_add(start.elapsed())` as the current time; a test
/// simply counts. 64 bits of nanoseconds last 584 years.
///
/// ```
/// use core::time::Duration;
/// use vsock_proto::Tick;
///
/// let start = Tick::ZERO;
/// let later = start.saturating_add(Duration::from_millis(2));
/// assert!(later > start);
/// assert_eq!(later.since(start), Duration::from_millis(2));
/// // Time never runs backwards, and a duration that is too long leads to the end of time.
/// assert_eq!(start.since(later), Duration::ZERO);
/// assert_eq!(later.saturating_add(Duration::MAX), Tick::MAX);
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Tick(u64);

impl Tick {
    /// The caller's origin.
    pub const ZERO: Self = Self(0);

    /// The end of time: a deadline that never arrives.
    pub const MAX: Self = Self(u64::MAX);

    /// Returns the point `nanos` nanoseconds after the origin.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Returns the nanoseconds since the origin.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Returns the time from `earlier` to `self`, or zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Returns the point `duration` later, or [`Tick::MAX`], which means "never", if the duration
    /// is too long for the clock.
    #[must_use]
    pub fn saturating_add(self, duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }
}
