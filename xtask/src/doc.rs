// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `doc`: the documentation, without a warning.

use xshell::cmd;

use crate::shell::Env;

pub(crate) fn run(env: &Env) -> anyhow::Result<()> {
    cmd!(
        env.sh,
        "cargo doc --workspace --no-deps --all-features --locked"
    )
    .env("RUSTDOCFLAGS", "--deny warnings")
    .run()?;
    Ok(())
}
