// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::error::Error;
use std::fmt;

/// Something that a correct muxer does not do, or that it should have done, in words.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SimFailure(String);

impl SimFailure {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for SimFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for SimFailure {}

/// A failure, unless `good`.
pub(crate) fn require(good: bool, text: impl FnOnce() -> String) -> Result<(), SimFailure> {
    if good {
        return Ok(());
    }
    Err(SimFailure(text()))
}
