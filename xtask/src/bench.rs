// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `bench`: the transport and its peers.

use std::ffi::OsString;
use std::process::ExitCode;

use crate::guest;
use crate::shell::Env;

/// The word that asks for devices under a driver in the bench's process.
const NATIVE: &str = "--native";

/// Runs the bench with the user's words: of the transport, or with `--guest` or `--native` of the
/// devices.
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
