// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What `ci` runs that is built for speed: the demo, the guest suite with its device, and the fuzz
//! targets. One build makes all of it, so that the crates and what they depend on are compiled once.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, ensure};
use xshell::cmd;

use crate::guest;
use crate::shell::Env;

/// Which features a dependency has follows from all packages of a build, so each step names the
/// same ones.
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

/// Builds everything, and what the guest boots from.
pub(crate) fn build(env: &Env) -> anyhow::Result<()> {
    let _checked = env.checked();
    cmd!(env.sh, "cargo build {PACKAGES...} {TARGETS...}").run()?;
    guest::prepare(env)
}

/// The directory of the programs.
pub(crate) fn directory(env: &Env) -> PathBuf {
    env.target.join("release")
}

/// Runs one of the programs that [`build`] has made; its exit code.
pub(crate) fn run(env: &Env, name: &str, words: &[OsString]) -> anyhow::Result<ExitCode> {
    let program = directory(env).join(name);
    ensure!(program.exists(), "{} is not built", program.display());
    let line = cmd!(env.sh, "{program} {words...}");
    let status = std::process::Command::from(line)
        .stdin(std::process::Stdio::null())
        .status()
        .with_context(|| format!("cannot start {name}"))?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}
