// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `drop-in`: the documented command lines of vhost-device-vsock, with it and with our program.

use std::process::ExitCode;

use xshell::cmd;

use crate::guest;
use crate::shell::{Env, Missing};

/// Where the guest runner installs vhost-device-vsock, in the target directory.
const PEER: &str = "guest/peer/bin/vhost-device-vsock";

/// Installs vhost-device-vsock if it is missing, and runs the tests.
///
/// # Errors
///
/// [`Missing`] if it cannot be installed.
pub(crate) fn run(env: &Env) -> anyhow::Result<()> {
    let installed = guest::run(env, "peer", std::iter::empty())?;
    if installed != ExitCode::SUCCESS {
        return Err(
            Missing::new("vhost-device-vsock", "cargo xtask drop-in, with a network").into(),
        );
    }
    let _peer = env.sh.push_env("VSOCK_PEER", env.target.join(PEER));
    let package = "vsock-vhost-user";
    cmd!(
        env.sh,
        "cargo test --locked --package {package} --test daemon -- drop_in"
    )
    .run()?;
    Ok(())
}
