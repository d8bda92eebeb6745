// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Where a command runs: the repository, the tools and the build directories.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::Context;
use xshell::{Shell, cmd};

use crate::foreground;

/// The environment of every command.
#[derive(Debug)]
pub(crate) struct Env {
    /// A shell whose directory is the root of the repository. It does not read standard input.
    pub(crate) sh: Shell,
    /// The root of the repository.
    pub(crate) root: PathBuf,
    /// cargo's target directory.
    pub(crate) target: PathBuf,
}

impl Env {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = manifest
            .parent()
            .context("xtask has no parent directory")?
            .to_owned();
        let sh = Shell::new()?;
        sh.change_dir(&root);
        let target =
            std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
        Ok(Self {
            sh,
            target: std::path::absolute(target)?,
            root,
        })
    }

    /// Returns `cargo metadata` of the workspace's own packages.
    pub(crate) fn metadata(&self) -> anyhow::Result<serde_json::Value> {
        let text = cmd!(
            self.sh,
            "cargo metadata --no-deps --format-version 1 --locked"
        )
        .quiet()
        .read()?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Returns the library crates of the workspace: the directories in `crates`, sorted.
    pub(crate) fn crates(&self) -> anyhow::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in self.sh.read_dir(self.root.join("crates"))? {
            if entry.join("Cargo.toml").exists()
                && let Some(name) = entry.file_name().and_then(|name| name.to_str())
            {
                names.push(name.to_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    /// Returns a line of the compiler's description of itself.
    pub(crate) fn rustc(&self, key: &str) -> anyhow::Result<String> {
        let text = cmd!(self.sh, "rustc --verbose --version").quiet().read()?;
        let value = text.lines().find_map(|line| line.strip_prefix(key));
        value
            .map(str::to_owned)
            .with_context(|| format!("rustc reports no {}", key.trim_end_matches(": ")))
    }

    /// Builds a package's program and runs it with the user's arguments in the user's directory.
    /// Returns its exit code.
    pub(crate) fn program(
        &self,
        package: &str,
        profile: &str,
        words: impl Iterator<Item = OsString>,
    ) -> anyhow::Result<ExitCode> {
        let manifest = self.root.join("Cargo.toml");
        let run = cmd!(
            self.sh,
            "cargo run --locked --profile {profile} --package {package} --manifest-path {manifest}"
        );
        let mut command = Command::from(run.arg("--").args(words));
        foreground::run(command.current_dir(std::env::current_dir()?))
    }

    /// Returns the program's path if it is in a directory of `PATH`.
    pub(crate) fn which(program: &str) -> Option<PathBuf> {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path)
            .map(|dir| dir.join(program))
            .find(|file| is_program(file))
    }

    /// Checks that a program is installed. Its second name is that of its Debian package.
    ///
    /// # Errors
    ///
    /// [`Missing`].
    pub(crate) fn require((program, package): (&str, &str)) -> Result<(), Missing> {
        let hint = format!("apt-get install --no-install-recommends {package}");
        Self::which(program)
            .map(drop)
            .ok_or_else(|| Missing::new(program, hint))
    }
}

/// Returns whether the file can be executed.
pub(crate) fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata()
        .is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

/// An error: a tool is missing. It names the line that installs it. `ci` leaves the step out.
#[derive(Debug)]
pub(crate) struct Missing {
    /// The tool's name.
    pub(crate) tool: String,
    /// The line to run.
    pub(crate) hint: String,
}

impl Missing {
    pub(crate) fn new(tool: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            tool: tool.into(),
            hint: hint.into(),
        }
    }
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} is missing; run: {}", self.tool, self.hint)
    }
}

impl std::error::Error for Missing {}
