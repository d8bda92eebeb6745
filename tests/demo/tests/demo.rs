// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The demo as a person runs it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

fn demo(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vsock-demo"))
        .args(arguments)
        .output()
        .unwrap()
}

/// A file of this test's, with this many bytes.
fn file(name: &str, len: usize) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let bytes: Vec<u8> = (0..len).map(|at| u8::try_from(at % 253).unwrap()).collect();
    fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn a_file_travels_there_and_back_over_every_transport() {
    let path = file("some", 3_000_001);
    let output = demo(&["--rounds", "1", path.to_str().unwrap()]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("Every byte came back unchanged"), "{said}");
    for row in [
        "vsock-inner ",
        "Unix socket pair ",
        "simulated guest, host connects ",
        "simulated guest, guest connects ",
    ] {
        assert!(said.lines().any(|line| line.starts_with(row)), "{said}");
    }
}

#[test]
fn an_empty_file_can_be_sent() {
    let path = file("none", 0);
    assert!(
        demo(&["--rounds", "1", path.to_str().unwrap()])
            .status
            .success()
    );
}

#[test]
fn a_file_that_cannot_be_read_is_a_clear_error() {
    let output = demo(&["/nowhere/at/all"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said.starts_with("demo: cannot read /nowhere/at/all; name a file"),
        "{said}"
    );
    assert!(said.contains("No such file"), "{said}");
}

#[test]
fn a_directory_cannot_be_sent() {
    let output = demo(&[env!("CARGO_TARGET_TMPDIR")]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("is not a regular file"), "{said}");
}
