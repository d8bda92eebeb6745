// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Whether waits are cancelled, and whether they were since a call began.

/// How often waits were cancelled and resumed; they are cancelled while the count is odd.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Cancels(u64);

impl Cancels {
    /// Waits end from now on.
    pub(crate) const fn cancelled(self) -> Self {
        Self(self.0 | 1)
    }

    /// Calls may wait again.
    pub(crate) const fn resumed(self) -> Self {
        Self((self.0 + 1) & !1)
    }

    /// Whether a call that began at `since` may wait no more: also where its cancellation was taken
    /// back meanwhile.
    pub(crate) fn end(self, since: Self) -> bool {
        self != since || self.0 % 2 == 1
    }

    pub(crate) const fn to_bits(self) -> u64 {
        self.0
    }

    pub(crate) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}
