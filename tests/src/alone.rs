// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Runs tests that measure or change their process in a process of their own.

use std::any::type_name;
use std::process::Command;
use std::{env, fs};

/// The environment variable by which the new process learns that it runs one test. Its value is the
/// file that the test creates when it begins.
const ALONE: &str = "VSOCK_TEST_ALONE";

/// Runs `body`, a closure in a test, in a process in which nothing else runs. The process runs this
/// test binary again with that test only.
///
/// # Panics
///
/// Panics if the process cannot be started, if the test fails in it, or if no test has this name.
pub fn alone<F: FnOnce()>(body: F) {
    if let Some(begun) = env::var_os(ALONE) {
        assert!(fs::write(begun, "").is_ok(), "the file can be created");
        return body();
    }
    let name = test_of::<F>();
    let (Ok(binary), Ok(dir)) = (env::current_exe(), tempfile::tempdir()) else {
        panic!("{name}: cannot find this binary's path, or cannot create a directory");
    };
    let begun = dir.path().join("begun");
    let status = Command::new(binary)
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(ALONE, &begun)
        .status();
    match status {
        Ok(status) => assert!(status.success(), "{name} failed in its own process"),
        Err(error) => panic!("{name}: cannot start a process: {error}"),
    }
    assert!(begun.exists(), "this binary has no test {name}");
}

/// Returns the name of the test that contains the closure `F`: its path without the crate.
fn test_of<F>() -> &'static str {
    let path = type_name::<F>();
    let path = path.split_once("::").map_or(path, |(_, path)| path);
    path.strip_suffix("::{{closure}}").unwrap_or(path)
}
