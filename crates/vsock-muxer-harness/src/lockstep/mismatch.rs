// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::fmt;
use std::io;

use thiserror::Error;

/// A difference between the connection and the model.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("{0}")]
pub struct Mismatch(pub(super) String);

impl From<io::Error> for Mismatch {
    fn from(error: io::Error) -> Self {
        Self(format!("a call that must succeed failed: {error:?}"))
    }
}

pub(super) fn agree<T: PartialEq + fmt::Debug>(
    what: impl fmt::Display,
    got: &T,
    want: &T,
) -> Result<(), Mismatch> {
    if got == want {
        return Ok(());
    }
    Err(Mismatch(format!(
        "{what}: {got:?}, but {want:?} in the model"
    )))
}
