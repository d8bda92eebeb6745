// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `test`: all tests, and the examples in the documentation.

use xshell::cmd;

use crate::shell::Env;

pub(crate) fn run(env: &Env) -> anyhow::Result<()> {
    // Without `--all-targets`: it would leave the documentation out.
    cmd!(
        env.sh,
        "cargo test --workspace --all-features --locked --no-fail-fast"
    )
    .run()?;
    // An event loop without rust-vmm's event manager.
    cmd!(
        env.sh,
        "cargo test --package vsock-epoll --no-default-features --locked --no-fail-fast"
    )
    .run()?;
    Ok(())
}
