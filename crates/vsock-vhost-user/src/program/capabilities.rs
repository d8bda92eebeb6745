// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What QEMU's conventions for back-end programs ask for: `--print-capabilities`, and the file by
//! which management software finds the program (both of QEMU's `vhost-user.json`).

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use serde_json::{Value, json};

/// The option, which has its effect whatever stands next to it.
const OPTION: &str = "--print-capabilities";

/// Whether the program is asked for them.
pub(crate) fn asked_for(mut words: impl Iterator<Item = OsString>) -> bool {
    words.any(|word| word == OPTION)
}

/// Prints them.
pub(crate) fn print() -> ExitCode {
    // The type has no features of its own.
    let printed = writeln!(io::stdout(), "{:#}", json!({ "type": "vsock" }));
    ExitCode::from(u8::from(printed.is_err()))
}

/// The description of the program at this path.
pub(crate) fn description(binary: &str) -> Value {
    json!({
        "description": "vsock-vhost-user, a virtio-vsock device",
        "type": "vsock",
        "binary": binary,
    })
}
