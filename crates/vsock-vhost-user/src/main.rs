// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A vsock device that runs as a separate process, outside the VMM.

#![deny(unsafe_code)]

mod program;

use std::process::ExitCode;

fn main() -> ExitCode {
    program::main()
}
