// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `drop-in`: the peer's command lines, with the peer and with our program.

use std::process::ExitCode;

use anyhow::ensure;
use xshell::cmd;

use crate::guest;
use crate::shell::Env;

/// Where the runner of the guest puts the peer, among the build products.
const PEER: &str = "guest/peer/bin/vhost-device-vsock";

/// Installs the peer where it is missing, and runs the tests.
pub(crate) fn run(env: &Env) -> anyhow::Result<()> {
    let installed = guest::run(env, "peer", std::iter::empty())?;
    ensure!(installed == ExitCode::SUCCESS, "the peer is not installed");
    let _peer = env.sh.push_env("VSOCK_PEER", env.target.join(PEER));
    let package = "vsock-vhost-user";
    cmd!(
        env.sh,
        "cargo test --locked --package {package} --test daemon -- drop_in"
    )
    .run()?;
    Ok(())
}
