// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Streams, listeners and connectors under tokio.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod accepting;
mod cancelling;
mod connecting;
mod costs;
mod ends;
mod fd_streams;
mod guest;
mod http;
mod machine;
mod rpc;
mod runtimes;
mod streams;

use std::alloc::System;
use std::io;
use std::time::Duration;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// How long a test may take on a loaded machine.
const LONG: Duration = Duration::from_secs(60);

/// A runtime for one thread, with everything that `AsyncFdStream` and timeouts need.
fn one_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn two_threads() -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().unwrap()
}

/// Runs a test on a runtime of one thread, and on one of two.
fn on_both(test: impl AsyncFn()) {
    for runtime in [one_thread(), two_threads()] {
        runtime.block_on(soon(test()));
    }
}

/// The result of a future, which must not block indefinitely.
async fn soon<F: Future>(future: F) -> F::Output {
    timeout(LONG, future).await.unwrap()
}

/// Checks that a call failed with `kind`.
#[track_caller]
fn assert_fails<T>(result: io::Result<T>, kind: io::ErrorKind) {
    assert_eq!(result.err().map(|error| error.kind()), Some(kind));
}
