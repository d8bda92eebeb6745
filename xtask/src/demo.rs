// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `demo`: sends a file through the transport, or through a device and a guest.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::ensure;

use crate::shell::Env;
use crate::{guest, programs};

/// Runs the demo with the user's words; with `--guest` through a device and a guest.
pub(crate) fn run(env: &Env, words: impl Iterator<Item = OsString>) -> anyhow::Result<ExitCode> {
    let words: Vec<OsString> = words.collect();
    match guest::without(guest::WORD, &words) {
        Some(words) => guest::run(env, "demo", words.into_iter()),
        None => env.program("vsock-demo", "release", words.into_iter()),
    }
}

/// Makes a short run for `ci`, with this program as the file.
pub(crate) fn short(env: &Env) -> anyhow::Result<()> {
    let file = std::env::current_exe()?;
    let code = programs::run(env, "vsock-demo", &[file.into_os_string()])?;
    ensure!(code == ExitCode::SUCCESS, "the demo failed");
    Ok(())
}
