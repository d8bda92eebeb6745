// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use thiserror::Error;

/// A rule that the muxer has broken, in words.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("{0}")]
pub struct SimFailure(String);

impl SimFailure {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// Fails with `text` unless `good`.
pub(crate) fn require(good: bool, text: impl FnOnce() -> String) -> Result<(), SimFailure> {
    if good {
        return Ok(());
    }
    Err(SimFailure(text()))
}
