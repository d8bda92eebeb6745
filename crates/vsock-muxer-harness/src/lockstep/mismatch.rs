// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::fmt;
use std::io;

use thiserror::Error;

/// Where the connection did something else than the model.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("{0}")]
pub struct Mismatch(pub(super) String);

impl From<io::Error> for Mismatch {
    fn from(error: io::Error) -> Self {
        Self(format!("a call failed that must succeed: {error:?}"))
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
        "{what}: {got:?}, and by the model {want:?}"
    )))
}
