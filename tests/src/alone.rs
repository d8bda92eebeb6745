// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Tests that measure or change their process, and need one of their own.

use std::env;
use std::process::Command;

/// Says to a process that it was started for one test.
const ALONE: &str = "VSOCK_TEST_ALONE";

/// Runs `body` in a process in which nothing else runs: the test `name` of this binary, started anew.
///
/// # Panics
///
/// If the process cannot be started, or the test fails in it.
pub fn alone(name: &str, body: impl FnOnce()) {
    if env::var_os(ALONE).is_some() {
        return body();
    }
    let binary =
        env::current_exe().unwrap_or_else(|error| panic!("no path to this binary: {error}"));
    let status = Command::new(binary)
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(ALONE, "1")
        .status();
    match status {
        Ok(status) => assert!(status.success(), "{name} failed in its own process"),
        Err(error) => panic!("{name} has no process: {error}"),
    }
}
