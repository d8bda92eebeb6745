// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The programs that `ci` runs: the guest suite with its device and the guest's own programs, and
//! the demo.
//!
//! They are built as the tests are but without coverage, so both share the build of their
//! dependencies, and the device has the sandbox that its users get.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::ensure;
use xshell::{PushEnv, cmd};

use crate::cover;
use crate::shell::Env;
use crate::{foreground, guest};

const HOST: [&str; 12] = [
    "--package",
    "vsock-guest",
    "--package",
    "vsock-vhost-user",
    "--package",
    "vsock-demo",
    "--bin",
    "vsock-guest",
    "--bin",
    "vsock-vhost-user",
    "--bin",
    "vsock-demo",
];
/// The programs in the guest.
const GUEST: [&str; 2] = ["guest-init", "guest-rpc"];
/// Links a program statically, because the guest has no loader. The flags apply to the program
/// alone, so the build of its dependencies is the common one.
const STATIC: [&str; 4] = ["-C", "target-feature=+crt-static", "-C", "strip=symbols"];

/// Builds all programs, and the guest's boot image.
pub(crate) fn build(env: &Env) -> anyhow::Result<()> {
    let directories = directories(env);
    cmd!(env.sh, "cargo build --locked {HOST...}").run()?;
    for program in GUEST {
        let options = ["--locked", "--package", "vsock-guest", "--bin", program];
        cmd!(env.sh, "cargo rustc {options...} -- {STATIC...}").run()?;
    }
    drop(directories);
    guest::prepare(env)
}

/// While the values exist, cargo shares the build directory of the tests, but puts the programs
/// elsewhere: the tests have programs of the same names.
fn directories(env: &Env) -> [PushEnv<'_>; 2] {
    [
        ("CARGO_BUILD_BUILD_DIR", cover::directory(env)),
        ("CARGO_TARGET_DIR", env.target.join("ci/programs")),
    ]
    .map(|(name, path)| env.sh.push_env(name, path))
}

/// The directory of the programs.
pub(crate) fn directory(env: &Env) -> PathBuf {
    env.target.join("ci/programs/debug")
}

/// Runs one of the programs that [`build`] has made, and returns its exit code.
pub(crate) fn run(env: &Env, name: &str, words: &[OsString]) -> anyhow::Result<ExitCode> {
    let program = directory(env).join(name);
    ensure!(program.exists(), "{} is not built", program.display());
    foreground::run(&mut Command::from(cmd!(env.sh, "{program} {words...}")))
}
