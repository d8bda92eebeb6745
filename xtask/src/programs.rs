// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The optimised programs that `ci` runs: the demo, the guest suite with its
//! device, and the fuzz targets. One build makes all of them, so that the crates and their
//! dependencies are compiled once.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::ensure;
use xshell::{PushEnv, cmd};

use crate::shell::Env;
use crate::{foreground, guest};

/// The features of a dependency depend on all packages of a build, so each step names the same
/// packages.
pub(crate) const PACKAGES: [&str; 10] = [
    "--release",
    "--locked",
    "--package",
    "vsock-guest",
    "--package",
    "vsock-vhost-user",
    "--package",
    "vsock-demo",
    "--package",
    "vsock-fuzz",
];

/// The programs, and the tests of the fuzz targets.
const TARGETS: [&str; 8] = [
    "--bin",
    "vsock-guest",
    "--bin",
    "vsock-vhost-user",
    "--bin",
    "vsock-demo",
    "--test",
    "replay",
];

/// While the values exist, cargo builds as `ci` does: with assertions, and with few optimisations.
pub(crate) fn settings(env: &Env) -> Vec<PushEnv<'_>> {
    let mut pushed = Vec::from(env.checked());
    // An emulated processor sets the pace of the guest suite, so building quickly matters more.
    pushed.push(env.sh.push_env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1"));
    pushed.push(env.sh.push_env("CARGO_PROFILE_RELEASE_DEBUG", "none"));
    pushed
}

/// Builds all programs and the guest's boot image.
pub(crate) fn build(env: &Env) -> anyhow::Result<()> {
    let _settings = settings(env);
    cmd!(env.sh, "cargo build {PACKAGES...} {TARGETS...}").run()?;
    guest::prepare(env)
}

/// The directory of the programs.
pub(crate) fn directory(env: &Env) -> PathBuf {
    env.target.join("release")
}

/// Runs one of the programs that [`build`] has made, and returns its exit code.
pub(crate) fn run(env: &Env, name: &str, words: &[OsString]) -> anyhow::Result<ExitCode> {
    let program = directory(env).join(name);
    ensure!(program.exists(), "{} is not built", program.display());
    foreground::run(&mut Command::from(cmd!(env.sh, "{program} {words...}")))
}
