// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Programs of another revision of this repository, which are measured in turn with this one's.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// A revision, and the directory with its files and build products.
#[derive(Clone, Debug)]
pub struct Revision {
    commit: String,
    directory: PathBuf,
}

impl Revision {
    /// Finds the commit that git calls `name`. Its files will be below `directory`.
    ///
    /// # Errors
    ///
    /// Git finds no such commit.
    pub fn find(name: &str, directory: &Path) -> Result<Self> {
        let commit = said(
            Command::new("git")
                .args(["rev-parse", "--verify", "--end-of-options"])
                .arg(format!("{name}^{{commit}}")),
        )
        .with_context(|| format!("{name:?} is not a revision of this repository"))?;
        Ok(Self {
            commit,
            directory: std::path::absolute(directory)?,
        })
    }

    /// Returns the full name of the commit.
    #[must_use]
    pub fn commit(&self) -> &str {
        &self.commit
    }

    /// Builds the program of `package`, which has the package's name, from a copy of the files.
    ///
    /// # Errors
    ///
    /// The files cannot be copied, or the build fails.
    pub fn build(&self, package: &str) -> Result<PathBuf> {
        let tree = self.tree()?;
        let target = self.directory.join("target");
        let cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .current_dir(&tree)
            .env("CARGO_TARGET_DIR", &target)
            .args(["build", "--quiet", "--locked", "--profile", "bench"])
            .args(["--package", package])
            .status()?;
        let commit = &self.commit;
        ensure!(cargo.success(), "{package} of {commit} does not build");
        Ok(target.join("release").join(package))
    }

    /// Returns the directory with the revision's files. Unpacks them if they are missing.
    fn tree(&self) -> Result<PathBuf> {
        let tree = self.directory.join(&self.commit);
        if tree.exists() {
            return Ok(tree);
        }
        let repository = said(Command::new("git").args(["rev-parse", "--show-toplevel"]))?;
        let unpacked = self.directory.join("unpacking");
        fs::create_dir_all(&unpacked)?;
        let archive = self.directory.join("tree.tar");
        let git = Command::new("git")
            .current_dir(&repository)
            .args(["archive", "--format=tar", &self.commit])
            .stdout(File::create(&archive)?)
            .status()?;
        ensure!(git.success(), "git archive {} failed", self.commit);
        let tar = Command::new("tar")
            .arg("-xf")
            .arg(&archive)
            .arg("-C")
            .arg(&unpacked)
            .status()
            .context("cannot run tar")?;
        ensure!(tar.success(), "tar failed");
        fs::rename(&unpacked, &tree)?;
        Ok(tree)
    }
}

/// Returns what a program writes to its standard output.
fn said(command: &mut Command) -> Result<String> {
    let output = command.stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "{command:?} failed");
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
