// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `bench`: the transport beside its peers.

use std::ffi::OsString;
use std::process::ExitCode;

use crate::guest;
use crate::shell::Env;

/// Runs the bench with the user's words; with `--guest` that of the devices.
pub(crate) fn run(env: &Env, words: impl Iterator<Item = OsString>) -> anyhow::Result<ExitCode> {
    let words: Vec<OsString> = words.collect();
    match guest::asked_for(&words) {
        Some(words) => guest::run(env, "bench", words.into_iter()),
        None => env.program("vsock-bench", "bench", words.into_iter()),
    }
}
