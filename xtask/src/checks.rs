// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `lint`, `test`, `doc`, `deny`, `unused` and `workflows`: checks by common tools.

use anyhow::bail;
use xshell::cmd;

use crate::cover::{self, TESTS};
use crate::shell::{Env, Missing};
use crate::tools::{ACTIONLINT, DENY, SHEAR, ZIZMOR};

/// Checks formatting, and runs clippy.
pub(crate) fn lint(env: &Env) -> anyhow::Result<()> {
    let mut failed = Vec::new();
    let mut note = |what: &str, result: xshell::Result<()>| {
        if result.is_err() {
            failed.push(what.to_owned());
        }
    };
    note("formatting", cmd!(env.sh, "cargo fmt --all --check").run());
    note(
        "clippy",
        clippy(env, &["--workspace", "--all-targets", "--all-features"]),
    );
    for name in env.crates()? {
        note(
            &format!("clippy on bare {name}"),
            clippy(env, &["--package", &name, "--no-default-features"]),
        );
    }
    if !failed.is_empty() {
        bail!("{}", failed.join(", "));
    }
    Ok(())
}

/// Applies the fixes that the tools can make.
pub(crate) fn mend(env: &Env) -> anyhow::Result<()> {
    let what = ["--workspace", "--all-targets", "--all-features", "--locked"];
    let dirty = ["--allow-dirty", "--allow-staged"];
    cmd!(env.sh, "cargo clippy {what...} --fix {dirty...}").run()?;
    cmd!(env.sh, "cargo fmt --all").run()?;
    Ok(())
}

fn clippy(env: &Env, what: &[&str]) -> xshell::Result<()> {
    cmd!(env.sh, "cargo clippy {what...} --locked -- --deny warnings").run()
}

/// Runs all tests and the examples in the documentation.
pub(crate) fn test(env: &Env) -> anyhow::Result<()> {
    // Not with `--all-targets`, which would leave out the documentation.
    cmd!(env.sh, "cargo test {TESTS...}").run()?;
    bare_event_loop(env)?;
    Ok(())
}

/// Tests the event loop without rust-vmm's event manager.
pub(crate) fn bare_event_loop(env: &Env) -> xshell::Result<()> {
    cmd!(
        env.sh,
        "cargo test --package vsock-epoll --no-default-features --locked --no-fail-fast"
    )
    .run()
}

/// Builds the tests as `ci` runs them, with coverage.
///
/// # Errors
///
/// The tests do not build. If coverage is not available, [`test_and_cover`] reports that.
pub(crate) fn build_tests(env: &Env) -> anyhow::Result<()> {
    match cover::build(env) {
        Err(error) if error.is::<Missing>() => {
            cmd!(env.sh, "cargo test {TESTS...} --tests --no-run").run()?;
            Ok(())
        }
        other => other,
    }
}

/// Runs all tests once, with coverage.
///
/// # Errors
///
/// A test failed, or a crate is below its minimum. [`Missing`] if coverage is not available, after
/// a run of the tests without it.
pub(crate) fn test_and_cover(env: &Env) -> anyhow::Result<()> {
    match cover::run_built(env) {
        Err(error) if error.is::<Missing>() => {
            test(env)?;
            Err(error)
        }
        other => other,
    }
}

/// Builds the documentation. A warning is an error.
pub(crate) fn doc(env: &Env) -> anyhow::Result<()> {
    cmd!(
        env.sh,
        "cargo doc --workspace --no-deps --all-features --locked"
    )
    .env("RUSTDOCFLAGS", "--deny warnings")
    .run()?;
    Ok(())
}

/// Finds dependencies that no source uses. Those of `vsock-pages` are used by examples in Markdown.
pub(crate) fn unused(env: &Env) -> anyhow::Result<()> {
    SHEAR.run(
        env,
        &["--locked", "--deny-warnings", "--exclude", "vsock-pages"],
    )
}

/// Checks the syntax and the security of the CI workflows.
pub(crate) fn workflows(env: &Env) -> anyhow::Result<()> {
    let syntax = ACTIONLINT.run(env, &[]);
    ZIZMOR.run(env, &["--offline", "--quiet", ".github"])?;
    syntax
}

/// The checks that do not need the database of advisories.
const DENIED: &[&str] = &["--locked", "check", "bans", "licenses", "sources"];

/// Checks licences, sources and versions. Needs no server except the crate registry.
pub(crate) fn deny(env: &Env) -> anyhow::Result<()> {
    DENY.run(env, DENIED)
}

/// Also checks advisories, whose database is on another server.
pub(crate) fn deny_with_advisories(env: &Env) -> anyhow::Result<()> {
    DENY.run(env, &[DENIED, &["advisories"]].concat())
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::path::Path;

    use crate::flags::Xtask;

    /// The commands of a workflow: what follows `cargo xtask`, and those of a job's matrix.
    fn commands(workflow: &str) -> Vec<&str> {
        let mut commands = Vec::new();
        for line in workflow.lines() {
            if let Some((_, command)) = line.split_once("run: cargo xtask ") {
                commands.push(command);
            } else if let Some((_, list)) = line.split_once(" command: [") {
                commands.extend(list.trim_end_matches(']').split(", "));
            } else if let Some((_, rest)) = line.split_once(" command: ") {
                commands.push(rest.split(',').next().unwrap_or_default());
            }
        }
        // A job with a matrix runs the commands that the matrix lists.
        commands.retain(|command| !command.contains("${{"));
        commands
    }

    #[test]
    fn the_workflows_use_commands_that_exist() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.github/workflows");
        let mut found = 0;
        for name in ["ci.yml", "deep.yml"] {
            let workflow = std::fs::read_to_string(directory.join(name)).unwrap();
            for command in commands(&workflow) {
                let words = command.split_whitespace();
                // The program that `guest` runs parses the other words.
                let words = words.take(if command.starts_with("guest") { 1 } else { 9 });
                Xtask::from_vec(words.map(OsString::from).collect()).expect(command);
                found += 1;
            }
        }
        assert!(found >= 15, "only {found} commands");
    }
}
