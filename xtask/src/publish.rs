// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `publish`: builds the packages for the registry from their own files. Uploads nothing.

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
    cmd!(env.sh, "cargo publish --workspace --dry-run --locked").run()?;
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
