// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A count of cancellations: whether waits are cancelled, and whether they were since a call began.

/// The number of cancels and resumes. Waits are cancelled while it is odd.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Cancels(u64);

impl Cancels {
    /// The count after a cancel.
    pub(crate) const fn cancelled(self) -> Self {
        Self(self.0 | 1)
    }

    /// The count after a resume.
    pub(crate) const fn resumed(self) -> Self {
        Self((self.0 + 1) & !1)
    }

    /// Whether a call that began at `since` must stop waiting. It must even if it has been resumed
    /// since, because it was cancelled in between.
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
