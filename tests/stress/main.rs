// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Many bytes and many connections, for as long as a change may take to be checked.
//!
//! `VSOCK_STRESS=10` does ten times as much; that is for a night, not for every change.

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

/// How much more than usual is asked for.
fn factor() -> u32 {
    match std::env::var("VSOCK_STRESS") {
        Ok(factor) => factor.parse().expect("VSOCK_STRESS is a number"),
        Err(_) => 1,
    }
}

/// How long nothing moves before it has come to a halt.
const STALL_TIMEOUT: Duration = Duration::from_secs(100);

/// By when a test of usual size must be done: far more than it takes.
fn deadline() -> Deadline {
    Deadline::after(STALL_TIMEOUT * factor())
}
