// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `demo`: the main job.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::ensure;

use crate::shell::Env;

/// Runs the demo with the user's words.
pub(crate) fn run(env: &Env, words: impl Iterator<Item = OsString>) -> anyhow::Result<ExitCode> {
    env.program("vsock-demo", "release", words)
}

/// A short run for `ci`: this very program is the file.
pub(crate) fn short(env: &Env) -> anyhow::Result<()> {
    let file = std::env::current_exe()?;
    let code = run(env, [file.into_os_string()].into_iter())?;
    ensure!(code == ExitCode::SUCCESS, "the demo failed");
    Ok(())
}
