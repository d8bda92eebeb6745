// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use core::time::Duration;

/// A point in monotonic time, in nanoseconds since an origin that the caller chooses.
///
/// The core reads no clock: its caller passes the time in. An event loop takes one `Instant` when
/// it starts, and `Tick::ZERO.saturating_add(start.elapsed())` is the time from then on; a test
/// counts by itself. 64 bits of nanoseconds last 584 years.
///
/// ```
/// use core::time::Duration;
/// use vsock_proto::Tick;
///
/// let start = Tick::ZERO;
/// let later = start.saturating_add(Duration::from_millis(2));
/// assert!(later > start);
/// assert_eq!(later.since(start), Duration::from_millis(2));
/// // Time that ran backwards is zero, and a time that is too long is the end of time.
/// assert_eq!(start.since(later), Duration::ZERO);
/// assert_eq!(later.saturating_add(Duration::MAX), Tick::MAX);
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Tick(u64);

impl Tick {
    /// The caller's origin.
    pub const ZERO: Self = Self(0);

    /// The end of time: a deadline here never comes.
    pub const MAX: Self = Self(u64::MAX);

    /// The point `nanos` nanoseconds after the origin.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the origin.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to `self`, zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The point `duration` later, or [`Tick::MAX`] where the duration is too long for the clock:
    /// then it means "never".
    #[must_use]
    pub fn saturating_add(self, duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }
}
