// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Tests that measure or change their process, and need one of their own.

use std::any::type_name;
use std::process::Command;
use std::{env, fs};

/// Says to a process that it was started for one test, and which file shows that it has come to it.
const ALONE: &str = "VSOCK_TEST_ALONE";

/// Runs `body`, a closure in a test, in a process in which nothing else runs: that test of this
/// binary, started anew.
///
/// # Panics
///
/// If the process cannot be started, or the test fails in it, or there is none of its name.
pub fn alone<F: FnOnce()>(body: F) {
    if let Some(begun) = env::var_os(ALONE) {
        assert!(
            fs::write(begun, "").is_ok(),
            "the file is there to be written"
        );
        return body();
    }
    let name = test_of::<F>();
    let (Ok(binary), Ok(dir)) = (env::current_exe(), tempfile::tempdir()) else {
        panic!("{name} has no path to this binary, or no directory");
    };
    let begun = dir.path().join("begun");
    let status = Command::new(binary)
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(ALONE, &begun)
        .status();
    match status {
        Ok(status) => assert!(status.success(), "{name} failed in its own process"),
        Err(error) => panic!("{name} has no process: {error}"),
    }
    assert!(begun.exists(), "{name} is no test of this binary");
}

/// The name of the test with the closure `F`: its path without the crate.
fn test_of<F>() -> &'static str {
    let path = type_name::<F>();
    let path = path.split_once("::").map_or(path, |(_, path)| path);
    path.strip_suffix("::{{closure}}").unwrap_or(path)
}
