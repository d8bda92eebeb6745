// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `msrv`: builds and tests everything with the oldest compiler that the manifests promise.

use std::path::{Path, PathBuf};

use anyhow::Context;
use xshell::cmd;

use crate::shell::{Env, Missing, is_program};

/// A compiler of the promised version, with its cargo.
#[derive(Debug, Eq, PartialEq)]
enum Toolchain {
    /// A toolchain of rustup, by name.
    Rustup(String),
    /// The programs of a directory, as a distribution installs them.
    Directory(PathBuf),
}

/// Builds the workspace with every target and feature, and runs the tests of the published crates.
///
/// # Errors
///
/// [`Missing`] if no compiler of that version is found.
pub(crate) fn run(env: &Env) -> anyhow::Result<()> {
    let version = promised(env)?;
    let toolchain = find(env, &version)?;
    println!("Rust {version}: {toolchain:?}");
    // A separate directory, so that the compilers do not replace each other's output.
    let _target = env.sh.push_env("CARGO_TARGET_DIR", env.target.join("msrv"));
    // xtask is only used to work on the repository, and needs the stable compiler.
    let all = ["check", "--workspace", "--exclude", "xtask"];
    let mut check = all.to_vec();
    check.extend(["--all-targets", "--all-features"]);
    cargo(env, &toolchain, &check)?;
    let packages: Vec<String> = env
        .crates()?
        .into_iter()
        .flat_map(|name| ["--package".to_owned(), name])
        .collect();
    let mut test = vec!["test", "--all-features", "--lib", "--bins", "--tests"];
    test.extend(packages.iter().map(String::as_str));
    cargo(env, &toolchain, &test)
}

/// Returns the version in the manifests of the published crates, such as `1.85`.
fn promised(env: &Env) -> anyhow::Result<String> {
    let metadata = env.metadata()?;
    let crates = env.crates()?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    // Other packages are tools and tests, and may need a later compiler.
    packages
        .filter(|one| crates.iter().any(|name| one["name"] == *name))
        .find_map(|one| one["rust_version"].as_str())
        .map(str::to_owned)
        .context("no manifest of a published crate has a rust-version")
}

fn find(env: &Env, version: &str) -> Result<Toolchain, Missing> {
    let installed = cmd!(env.sh, "rustup toolchain list")
        .quiet()
        .ignore_stderr()
        .read();
    let rustup = installed.ok().and_then(|list| {
        let names = list
            .lines()
            .filter_map(|line| line.split_whitespace().next());
        let mut fitting = names.filter(|name| is_of(name, version));
        fitting.next().map(str::to_owned)
    });
    if let Some(name) = rustup {
        return Ok(Toolchain::Rustup(name));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .find(|directory| tells(env, directory, version))
        .map(Toolchain::Directory)
        .ok_or_else(|| {
            let hint = format!(
                "rustup toolchain install {version} --profile minimal; or append to PATH a \
                 directory with that version's rustc and cargo (Debian 13 has both)"
            );
            Missing::new(format!("Rust {version}"), hint)
        })
}

/// Returns whether the compiler in a directory has this version.
fn tells(env: &Env, directory: &Path, version: &str) -> bool {
    let rustc = directory.join("rustc");
    if !is_program(&rustc) || !is_program(&directory.join("cargo")) {
        return false;
    }
    let told = cmd!(env.sh, "{rustc} --version")
        .quiet()
        .ignore_stderr()
        .read();
    told.is_ok_and(|line| {
        let name = line.strip_prefix("rustc ").unwrap_or_default();
        is_of(name, version)
    })
}

/// Returns whether a full name such as `1.85.1-x86_64-unknown-linux-gnu` matches a version such as
/// `1.85`.
fn is_of(name: &str, version: &str) -> bool {
    name.strip_prefix(version)
        .is_some_and(|rest| !rest.starts_with(|next: char| next.is_ascii_digit()))
}

fn cargo(env: &Env, toolchain: &Toolchain, words: &[&str]) -> anyhow::Result<()> {
    match toolchain {
        Toolchain::Rustup(name) => {
            cmd!(env.sh, "rustup run {name} cargo {words...} --locked").run()?;
        }
        Toolchain::Directory(directory) => {
            let _rustc = env.sh.push_env("RUSTC", directory.join("rustc"));
            let _rustdoc = env.sh.push_env("RUSTDOC", directory.join("rustdoc"));
            let cargo = directory.join("cargo");
            cmd!(env.sh, "{cargo} {words...} --locked").run()?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::is_of;

    #[test]
    fn versions_with_the_same_prefix_are_distinguished() {
        assert!(is_of("1.85-x86_64-unknown-linux-gnu", "1.85"));
        assert!(is_of("1.85.1 (4eb161250 2025-03-15)", "1.85"));
        assert!(!is_of("1.850.0", "1.85"));
        assert!(!is_of("1.95.0", "1.85"));
    }
}
