// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the suites share: the transports under test, each as a source of connected pairs.

#![forbid(unsafe_code)]

use std::io;

pub mod alone;
pub mod bare;
pub mod halves;
pub mod inner;
pub mod tasks;
pub mod unix;

/// A call that must have failed with `kind`.
///
/// # Panics
///
/// If it succeeded, or failed otherwise.
#[track_caller]
pub fn assert_fails<T>(result: io::Result<T>, kind: io::ErrorKind) {
    let failed = result.err().map(|error| error.kind());
    assert_eq!(failed, Some(kind));
}
