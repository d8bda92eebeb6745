// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `lint`: formatting and clippy.

use anyhow::bail;
use xshell::cmd;

use crate::shell::Env;

/// Checks, or with `fix` mends what can be mended and then checks.
pub(crate) fn run(env: &Env, fix: bool) -> anyhow::Result<()> {
    if fix {
        mend(env)?;
    }
    let mut failed = Vec::new();
    let mut note = |what: &str, result: xshell::Result<()>| {
        if result.is_err() {
            failed.push(what.to_owned());
        }
    };
    note("formatting", cmd!(env.sh, "cargo fmt --all --check").run());
    note(
        "clippy",
        clippy(env, &["--workspace", "--all-targets", "--all-features"]),
    );
    for name in env.crates()? {
        note(
            &format!("clippy on bare {name}"),
            clippy(env, &["--package", &name, "--no-default-features"]),
        );
    }
    if !failed.is_empty() {
        bail!("{}", failed.join(", "));
    }
    Ok(())
}

fn mend(env: &Env) -> anyhow::Result<()> {
    cmd!(env.sh, "cargo clippy --workspace --all-targets --all-features --locked --fix --allow-dirty --allow-staged")
        .run()?;
    cmd!(env.sh, "cargo fmt --all").run()?;
    Ok(())
}

fn clippy(env: &Env, what: &[&str]) -> xshell::Result<()> {
    cmd!(env.sh, "cargo clippy {what...} --locked -- --deny warnings").run()
}
