// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `features` and `minimal`: checks of builds that the manifests of the published crates promise in
//! addition to the usual one.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, bail};
use serde_json::Value;
use xshell::cmd;

use crate::shell::Env;

/// Checks every crate without features, and with each of its features alone.
///
/// # Errors
///
/// A crate does not compile. All crates are tried.
pub(crate) fn features(env: &Env) -> anyhow::Result<()> {
    let metadata = env.metadata()?;
    let mut checks = Vec::new();
    for name in env.crates()? {
        checks.push((name.clone(), None));
        let features = features_of(&metadata, &name);
        checks.extend(features.map(|feature| (name.clone(), Some(feature))));
    }
    let clock = Instant::now();
    let mut failed = Vec::new();
    for (index, (name, feature)) in checks.iter().enumerate() {
        let what = feature.map_or_else(
            || format!("{name} without features"),
            |feature| format!("{name} with {feature}"),
        );
        println!("[{}/{}] {what}", index + 1, checks.len());
        let options = ["--locked", "--no-default-features", "--package", name];
        let features = feature.iter().flat_map(|feature| ["--features", feature]);
        let check = cmd!(env.sh, "cargo check {options...} {features...}")
            .env("RUSTFLAGS", "--deny warnings");
        if check.quiet().run().is_err() {
            failed.push(what);
        }
    }
    if !failed.is_empty() {
        bail!("these do not compile: {}", failed.join(", "));
    }
    let seconds = clock.elapsed().as_secs();
    println!("all {} compile; {seconds} s", checks.len());
    Ok(())
}

/// Returns the names of a package's features, without `default`.
fn features_of<'a>(metadata: &'a Value, name: &str) -> impl Iterator<Item = &'a str> {
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let features = packages
        .filter(move |package| package["name"] == name)
        .filter_map(|package| package["features"].as_object());
    features
        .flat_map(|features| features.keys())
        .map(String::as_str)
        .filter(|feature| *feature != "default")
        .collect::<Vec<_>>()
        .into_iter()
}

/// Checks the published crates with the oldest versions of their dependencies that the manifests
/// allow.
///
/// # Errors
///
/// A lower bound is too low: the crate needs a later version.
pub(crate) fn minimal(env: &Env) -> anyhow::Result<()> {
    let copy = env.target.join("minimal/tree");
    copy_tree(env, &copy)?;
    for name in env.crates()? {
        let manifest = copy.join("crates").join(name).join("Cargo.toml");
        let text = without_tests(&fs::read_to_string(&manifest)?);
        fs::write(&manifest, text)?;
    }
    let manifest = copy.join("Cargo.toml");
    fs::write(&manifest, only_crates(&fs::read_to_string(&manifest)?))?;
    let _directory = env.sh.push_dir(&copy);
    // The option is unstable, but it only chooses versions: the compiler is the stable one.
    cmd!(env.sh, "cargo update -Z direct-minimal-versions")
        .env("RUSTC_BOOTSTRAP", "1")
        .run()?;
    let packages = env.crates()?;
    let packages = packages.iter().flat_map(|name| ["--package", name]);
    let target = env.target.join("minimal/target");
    cmd!(env.sh, "cargo check {packages...} --all-features --locked")
        .env("CARGO_TARGET_DIR", target)
        .run()?;
    Ok(())
}

/// Returns a crate's manifest without the dependencies of its tests, which allow fewer versions.
fn without_tests(manifest: &str) -> String {
    let mut kept = true;
    let lines = manifest.lines().filter(|line| {
        if line.starts_with('[') {
            kept = !line.contains("dev-dependencies");
        }
        kept
    });
    lines.map(|line| format!("{line}\n")).collect()
}

/// Returns the workspace's manifest with the published crates as its only members, without the
/// settings of packages that only tests use.
fn only_crates(manifest: &str) -> String {
    let mut kept = true;
    let lines = manifest.lines().filter(|line| {
        if line.starts_with('[') {
            kept = !line.starts_with("[profile.model.package");
        }
        kept && !line.starts_with("    \"tests") && *line != "    \"xtask\","
    });
    lines.map(|line| format!("{line}\n")).collect()
}

/// Copies the files that belong to the repository, so that its lock file stays as it is.
fn copy_tree(env: &Env, to: &Path) -> anyhow::Result<()> {
    env.sh.remove_path(to)?;
    let list = cmd!(env.sh, "git ls-files -z").quiet().read()?;
    for path in list.split('\0').filter(|path| !path.is_empty()) {
        let from = env.root.join(path);
        let to = to.join(path);
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent)?;
        }
        // A link to a file of the repository is copied as that file.
        if from.is_file() {
            fs::copy(&from, &to).with_context(|| format!("cannot copy {path}"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_feature_but_the_default_is_named() {
        let metadata = serde_json::json!({"packages": [
            {"name": "a", "features": {"default": ["x"], "x": [], "y": []}},
            {"name": "b", "features": {"z": []}},
        ]});
        let features: Vec<&str> = features_of(&metadata, "a").collect();
        assert_eq!(features, ["x", "y"]);
    }

    #[test]
    fn the_dependencies_of_tests_are_left_out() {
        let manifest =
            "[dependencies]\na = 1\n[target.x.dev-dependencies]\nb = 2\n[lints]\nc = 3\n";
        let expected = "[dependencies]\na = 1\n[lints]\nc = 3\n";
        assert_eq!(without_tests(manifest), expected);
    }

    #[test]
    fn the_crates_are_the_only_members() {
        let manifest = "members = [\n    \"crates/*\",\n    \"tests\",\n    \"xtask\",\n]\n\
                        [profile.model.package.loom]\na = 1\n[profile.bench]\nb = 2\n";
        let expected = "members = [\n    \"crates/*\",\n]\n[profile.bench]\nb = 2\n";
        assert_eq!(only_crates(manifest), expected);
    }
}
