// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::error::Error;
use std::fmt;
use std::io;

/// Where the connection did something else than the model.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mismatch(pub(super) String);

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Mismatch {}

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
