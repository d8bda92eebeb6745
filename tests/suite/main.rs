// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the crates of this workspace do together.

#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod backend;
mod borrowed;
mod cancel;
mod closing;
mod compliance;
mod connecting;
mod errors;
mod halves;
mod handshake;
mod late;
mod listener;
mod machine;
mod mutants;
mod names;
mod regressions;
mod two_threads;

use std::time::Duration;

use vsock_compliance::poll::Deadline;

/// Plenty for a machine under load.
const PATIENCE: Duration = Duration::from_secs(20);

fn soon() -> Deadline {
    Deadline::after(PATIENCE)
}
