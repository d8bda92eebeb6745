// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The transports under test, each as a source of connected pairs that all suites share.

#![forbid(unsafe_code)]

use std::io;

pub mod alone;
pub mod bare;
pub mod halves;
pub mod inner;
pub mod tasks;
pub mod unix;

/// Checks that a call failed with `kind`.
///
/// # Panics
///
/// Panics if the call succeeded, or failed otherwise.
#[track_caller]
pub fn assert_fails<T>(result: io::Result<T>, kind: io::ErrorKind) {
    let failed = result.err().map(|error| error.kind());
    assert_eq!(failed, Some(kind));
}
