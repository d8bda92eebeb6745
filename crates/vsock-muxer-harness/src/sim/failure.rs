// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use thiserror::Error;

/// Something that a correct muxer does not do, or that it should have done, in words.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("{0}")]
pub struct SimFailure(String);

impl SimFailure {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// A failure, unless `good`.
pub(crate) fn require(good: bool, text: impl FnOnce() -> String) -> Result<(), SimFailure> {
    if good {
        return Ok(());
    }
    Err(SimFailure(text()))
}
