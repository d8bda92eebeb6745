// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `publish`: builds the packages for the registry from their own files. Uploads nothing.

use std::path::PathBuf;

use anyhow::ensure;
use xshell::cmd;

use crate::shell::Env;

/// The files that every package contains.
const CONTAINED: &[&str] = &[
    "CHANGELOG.md",
    "LICENSE-APACHE",
    "LICENSE-BSD-3-CLAUSE",
    "README.md",
    "src/lib.rs",
];

/// Directories of code that can be built only in this repository.
const LEFT_OUT: &[&str] = &["tests/", "benches/"];

/// Makes each package, and builds it as a user of the registry would.
///
/// # Errors
///
/// A file is missing or must not be in a package, or a package does not build.
pub(crate) fn run(env: &Env) -> anyhow::Result<()> {
    contents(env)?;
    forget_earlier_packages(env)?;
    let target = env.target.join("publish");
    env.sh.remove_path(&target)?;
    cmd!(
        env.sh,
        "cargo publish --workspace --dry-run --locked --target-dir {target}"
    )
    .run()?;
    Ok(())
}

/// Removes packages that an earlier run has unpacked. Cargo tells them apart by version alone, in
/// its build directory too, and would build the others with them even after a change.
fn forget_earlier_packages(env: &Env) -> anyhow::Result<()> {
    let home = match env.sh.var_os("CARGO_HOME") {
        Some(home) => PathBuf::from(home),
        None => PathBuf::from(env.sh.var("HOME")?).join(".cargo"),
    };
    let unpacked = home.join("registry/src");
    if !unpacked.exists() {
        return Ok(());
    }
    let crates = env.crates()?;
    for registry in env.sh.read_dir(unpacked)? {
        // Only the directory of a registry without a host begins so.
        let name = registry.file_name().unwrap_or_default();
        if name.as_encoded_bytes().starts_with(b"-") {
            for name in &crates {
                env.sh
                    .remove_path(registry.join(format!("{name}-{}", env!("CARGO_PKG_VERSION"))))?;
            }
        }
    }
    Ok(())
}

/// Checks which files the packages contain, as `ci` does.
pub(crate) fn contents(env: &Env) -> anyhow::Result<()> {
    let mut findings = Vec::new();
    let crates = env.crates()?;
    for name in &crates {
        let options = ["--list", "--locked", "--allow-dirty", "--package", name];
        let files = cmd!(env.sh, "cargo package {options...}").quiet().read()?;
        findings.extend(check(&files).map(|finding| format!("{name}: {finding}")));
    }
    findings.iter().for_each(|finding| println!("{finding}"));
    ensure!(findings.is_empty(), "findings: {}", findings.len());
    println!(
        "{} packages contain the required files and no unwanted ones",
        crates.len()
    );
    Ok(())
}

/// Returns the missing files and the unwanted files of a package.
fn check(files: &str) -> impl Iterator<Item = String> {
    let missing = CONTAINED
        .iter()
        .filter(|file| !files.lines().any(|line| line == **file))
        .map(|file| format!("{file} is missing"));
    let superfluous = files
        .lines()
        .filter(|line| LEFT_OUT.iter().any(|directory| line.starts_with(directory)))
        .map(|line| format!("{line} cannot be built outside the repository; exclude it"));
    missing.chain(superfluous)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_with_all_files_is_accepted() {
        let files = CONTAINED.join("\n");
        assert_eq!(check(&files).count(), 0);
    }

    #[test]
    fn a_missing_file_and_tests_are_found() {
        let files = CONTAINED[1..].join("\n") + "\ntests/suite/main.rs";
        let found: Vec<String> = check(&files).collect();
        let expected = [
            "CHANGELOG.md is missing",
            "tests/suite/main.rs cannot be built outside the repository; exclude it",
        ];
        assert_eq!(found, expected);
    }
}
