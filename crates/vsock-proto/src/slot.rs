// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

/// A place in the caller's table of connections.
///
/// [`RxQueue`](crate::RxQueue) and [`Timers`](crate::Timers) know connections by their place. They
/// keep a few bytes for every place up to the highest that was used, so places are small numbers
/// and are used again.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Slot(u32);

impl Slot {
    /// The place with this number.
    #[must_use]
    pub const fn new(index: u32) -> Self {
        Self(index)
    }

    /// Its number, as it was given.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }

    /// Its number, to index with.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}
