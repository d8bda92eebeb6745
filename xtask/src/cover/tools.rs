// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Where LLVM's tools are. They must be of the compiler's own major version.

use std::path::PathBuf;

use xshell::cmd;

use crate::shell::{Env, Missing, is_program};

/// The two tools that read coverage.
#[derive(Debug)]
pub(crate) struct Llvm {
    pub(crate) profdata: PathBuf,
    pub(crate) cov: PathBuf,
}

impl Llvm {
    /// What they are called in messages.
    pub(crate) const NAME: &'static str = "llvm-cov";

    /// Looks in the toolchain, which has them as a component, and then among the programs with the
    /// version in their names, as Debian has them.
    ///
    /// # Errors
    ///
    /// [`Missing`].
    pub(crate) fn find(env: &Env) -> anyhow::Result<Self> {
        let (host, major) = (env.rustc("host: ")?, Self::major(env)?);
        let root = cmd!(env.sh, "rustc --print sysroot").quiet().read()?;
        let toolchain = PathBuf::from(root)
            .join("lib/rustlib")
            .join(host)
            .join("bin");
        let debian = PathBuf::from(format!("/usr/lib/llvm-{major}/bin"));
        let find = |tool: &str| {
            [toolchain.join(tool), debian.join(tool)]
                .into_iter()
                .find(|file| is_program(file))
                .or_else(|| Env::which(&format!("{tool}-{major}")))
                .ok_or_else(|| Missing {
                    tool: Self::NAME.to_owned(),
                    hint: Self::hint(env),
                })
        };
        Ok(Self {
            profdata: find("llvm-profdata")?,
            cov: find("llvm-cov")?,
        })
    }

    /// The major version of the compiler's LLVM.
    pub(crate) fn major(env: &Env) -> anyhow::Result<String> {
        let version = env.rustc("LLVM version: ")?;
        Ok(version.split('.').next().unwrap_or_default().to_owned())
    }

    /// What to run where `setup` could not install them.
    pub(crate) fn hint(env: &Env) -> String {
        let major = Self::major(env).unwrap_or_else(|_| "VERSION".to_owned());
        format!("rustup component add llvm-tools (or apt-get install llvm-{major})")
    }
}
