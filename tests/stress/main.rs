// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Many bytes and many connections, within the time that checking a change may take.
//!
//! `VSOCK_STRESS=10` multiplies the work by ten, for a nightly run.

#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod bytes;
mod connections;
mod tasks;

use std::time::Duration;

use vsock_compliance::poll::Deadline;

/// Returns the factor by which to multiply the work.
fn factor() -> u32 {
    match std::env::var("VSOCK_STRESS") {
        Ok(factor) => factor.parse().expect("VSOCK_STRESS is a number"),
        Err(_) => 1,
    }
}

/// How long nothing may move before the work counts as stuck.
const STALL_TIMEOUT: Duration = Duration::from_secs(100);

/// The deadline of a test at factor 1: far more than it takes.
fn deadline() -> Deadline {
    Deadline::after(STALL_TIMEOUT * factor())
}
