// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How the crates of this workspace work together.

#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod backend;
mod cancel;
mod closing;
mod compliance;
mod connecting;
mod credit;
mod errors;
mod halves;
mod handshake;
mod listener;
mod machine;
mod mutants;
mod names;
mod regressions;
mod seqpacket;
mod tasks;
mod tasks_connecting;
mod tasks_renewed;
mod two_threads;

use std::time::Duration;

use vsock_compliance::call::Call;
use vsock_compliance::poll::Deadline;
use vsock_inner::{VsockInnerBackend, VsockInnerListener};

/// The limit of a wait in a test, long enough for a loaded machine.
const DEADLINE: Duration = Duration::from_secs(20);

/// A backend with a listener at port 1024.
fn listening() -> (VsockInnerBackend, VsockInnerListener) {
    let backend = VsockInnerBackend::new().unwrap();
    let listener = backend.listen(1024).unwrap();
    (backend, listener)
}

/// Starts a call that must wait, and returns when it waits.
#[track_caller]
fn waiting<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> Call<T> {
    let call = Call::start(call).unwrap();
    call.asleep(soon()).unwrap();
    call
}

fn soon() -> Deadline {
    Deadline::after(DEADLINE)
}
