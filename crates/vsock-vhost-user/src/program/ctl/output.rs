// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io::{self, Write};

use super::error::CtlError;

/// Writes text to standard output and flushes it.
pub(super) fn print(text: &str) -> Result<(), CtlError> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(text.as_bytes());
    written
        .and_then(|()| stdout.flush())
        .map_err(CtlError::Output)
}
