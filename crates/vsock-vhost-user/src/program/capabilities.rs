// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The parts of QEMU's conventions for back-end programs (`vhost-user.json`): the option
//! `--print-capabilities`, and the description file by which management software finds the program.

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use serde_json::{Value, json};

/// The option. It takes effect whatever the other arguments are.
const OPTION: &str = "--print-capabilities";

/// Returns whether the arguments ask for the capabilities.
pub(crate) fn asked_for(mut words: impl Iterator<Item = OsString>) -> bool {
    words.any(|word| word == OPTION)
}

/// Prints the capabilities.
pub(crate) fn print() -> ExitCode {
    // Back-ends of this type have no optional features to list.
    let printed = writeln!(io::stdout(), "{:#}", json!({ "type": "vsock" }));
    ExitCode::from(u8::from(printed.is_err()))
}

/// Returns the contents of the description file for a program installed at `binary`.
pub(crate) fn description(binary: &str) -> Value {
    json!({
        "description": "vsock-vhost-user, a virtio-vsock device",
        "type": "vsock",
        "binary": binary,
    })
}
