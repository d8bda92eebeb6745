// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `guest`: a stock Linux guest under QEMU, on the devices of this repository.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::ensure;

use crate::programs;
use crate::shell::{Env, Missing};

/// The package of the runner, and the profile in which its figures are meaningful.
const PACKAGE: (&str, &str) = ("vsock-guest", "release");
/// The program, and its Debian package.
pub(crate) const QEMU: (&str, &str) = ("qemu-system-x86_64", "qemu-system-x86");
/// The runner's exit code if no kernel is available.
const LEFT_OUT: u8 = 77;
/// The option by which `demo` and `bench` use a guest.
pub(crate) const WORD: &str = "--guest";

/// Runs a command of the runner with the user's arguments.
pub(crate) fn run(
    env: &Env,
    command: &str,
    words: impl Iterator<Item = OsString>,
) -> anyhow::Result<ExitCode> {
    let (package, profile) = PACKAGE;
    let words = std::iter::once(OsString::from(command)).chain(words);
    env.program(package, profile, words)
}

/// Returns the user's arguments without this one, if they contain it.
pub(crate) fn without(word: &str, words: &[OsString]) -> Option<Vec<OsString>> {
    let others: Vec<OsString> = words
        .iter()
        .filter(|other| *other != word)
        .cloned()
        .collect();
    (others.len() < words.len()).then_some(others)
}

/// The tests that `ci` skips on our program: they download Debian's programs.
const SKIPPED: &[&str] = &["ssh_", "tshark"];
/// The tests that `ci` skips on the device in the runner's own process: they are slow, and run on
/// our program.
const SKIPPED_IN_PROCESS: &[&str] = &["rpc_", "siblings", "pause"];

/// Fetches a kernel and builds the guest's boot image, for `ci`.
pub(crate) fn prepare(env: &Env) -> anyhow::Result<()> {
    // Without QEMU the step `guest` is left out, and reports the missing tool.
    if Env::require(QEMU).is_ok() {
        let code = run_built(env, &["prepare"])?;
        ensure!(
            code == ExitCode::SUCCESS || code == ExitCode::from(LEFT_OUT),
            "cannot prepare the guest"
        );
    }
    Ok(())
}

/// Runs the suite on our program and a short demo, for `ci`.
///
/// # Errors
///
/// [`Missing`] if QEMU or a kernel is not available.
pub(crate) fn on_our_program(env: &Env) -> anyhow::Result<()> {
    suite(env, "ours", SKIPPED)?;
    let code = run_built(env, &["demo", "--rounds", "1"])?;
    ensure!(code == ExitCode::SUCCESS, "the demo with a guest failed");
    Ok(())
}

/// Runs the suite on the device in the runner's own process, for `ci`.
///
/// # Errors
///
/// [`Missing`] if QEMU or a kernel is not available.
pub(crate) fn in_process(env: &Env) -> anyhow::Result<()> {
    suite(env, "in-process", SKIPPED_IN_PROCESS)
}

fn suite(env: &Env, device: &str, skipped: &[&str]) -> anyhow::Result<()> {
    Env::require(QEMU)?;
    let mut words = vec!["suite", "--device", device];
    words.extend(skipped.iter().flat_map(|part| ["--skip", part]));
    let code = run_built(env, &words)?;
    if code == ExitCode::from(LEFT_OUT) {
        return Err(Missing::new("a kernel for the guest", "apt-get update").into());
    }
    ensure!(
        code == ExitCode::SUCCESS,
        "the guest suite failed on {device}"
    );
    Ok(())
}

/// Starts the runner and the programs that `ci` has built.
fn run_built(env: &Env, words: &[&str]) -> anyhow::Result<ExitCode> {
    let programs = programs::directory(env).into_os_string();
    let options = [OsString::from("--programs"), programs];
    let words = words.iter().map(OsString::from).chain(options);
    programs::run(env, PACKAGE.0, &words.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn the_option_may_be_anywhere_among_the_arguments() {
        assert_eq!(without(WORD, &words("some.iso")), None);
        assert_eq!(without(WORD, &words("--guest")), Some(words("")));
        assert_eq!(
            without(WORD, &words("some.iso --guest --rounds 2")),
            Some(words("some.iso --rounds 2"))
        );
    }
}
