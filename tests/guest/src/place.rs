// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The directories of the repository and of its build products.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// The repository and its directory of build products.
#[derive(Clone, Debug)]
pub struct Place {
    /// The repository.
    pub root: PathBuf,
    /// Where cargo puts what it builds.
    pub target: PathBuf,
    /// Where our device's program and the guest's programs are, if they are already built.
    pub programs: Option<PathBuf>,
}

impl Place {
    /// Finds both from this package's manifest.
    pub fn new() -> anyhow::Result<Self> {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = manifest
            .ancestors()
            .nth(2)
            .context("this package is not in a repository")?;
        let target =
            std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
        Ok(Self {
            root: root.to_owned(),
            target: std::path::absolute(target)?,
            programs: None,
        })
    }

    /// Returns the same directories, with one that contains our programs.
    #[must_use]
    pub fn with_programs(self, programs: Option<PathBuf>) -> Self {
        Self { programs, ..self }
    }

    /// Returns one of our directories below the build products. Creates it if necessary.
    pub fn directory(&self, name: &str) -> anyhow::Result<PathBuf> {
        let directory = self.target.join("guest").join(name);
        fs::create_dir_all(&directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
        Ok(directory)
    }
}
