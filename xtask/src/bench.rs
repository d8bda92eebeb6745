// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `bench`: the transport beside its peers.

use std::ffi::OsString;
use std::process::ExitCode;

use crate::shell::Env;

/// Runs the bench with the user's words.
pub(crate) fn run(env: &Env, words: impl Iterator<Item = OsString>) -> anyhow::Result<ExitCode> {
    env.program("vsock-bench", "bench", words)
}
