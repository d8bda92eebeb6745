// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `bench`: the transport compared with others.

use std::ffi::OsString;
use std::process::ExitCode;

use crate::guest;
use crate::shell::Env;

/// The option that selects devices under a driver in the bench's process.
const NATIVE: &str = "--native";

/// Runs the bench of the transport with the user's arguments, or that of the devices with `--guest`
/// or `--native`.
pub(crate) fn run(env: &Env, words: impl Iterator<Item = OsString>) -> anyhow::Result<ExitCode> {
    let words: Vec<OsString> = words.collect();
    if let Some(words) = guest::without(guest::WORD, &words) {
        return guest::run(env, "bench", words.into_iter());
    }
    match guest::without(NATIVE, &words) {
        Some(words) => env.program("vsock-native", "release", words.into_iter()),
        None => env.program("vsock-bench", "bench", words.into_iter()),
    }
}
