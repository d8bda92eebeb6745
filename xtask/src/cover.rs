// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `cover`: what the tests reach.
//!
//! The tests are built with the compiler's own instrumentation and the counters are read by LLVM's
//! tools. Code that is itself a test does not count: a test module is always covered.

mod report;
pub(crate) mod tools;

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use xshell::cmd;

use crate::shell::Env;
use report::Report;
use tools::Llvm;

/// The least share of lines, in percent, that each crate's tests reach. Only ever raised.
const FLOORS: &[(&str, f64)] = &[("vsock-backend-api", 95.0), ("vsock-inner", 95.0)];

pub(crate) fn run(env: &Env, html: bool) -> anyhow::Result<()> {
    let llvm = Llvm::find(env)?;
    let dir = env.target.join("cover");
    let objects = run_tests(env, &dir)?;
    let profile = merge(env, &llvm, &dir)?;
    let report = Report::new(env, &llvm, &profile, &objects)?;
    if html {
        let index = report.html(&dir.join("html"))?;
        println!("{}", index.display());
    }
    let rows = report.rows(&env.crates()?)?;
    println!("{}", report::table(&rows, FLOORS));
    let low = report::under_floor(&rows, FLOORS);
    if !low.is_empty() {
        bail!("{}", low.join("; "));
    }
    Ok(())
}

/// Builds and runs the tests; gives back their programs.
fn run_tests(env: &Env, dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let profiles = dir.join("profiles");
    env.sh.remove_path(&profiles)?;
    let flags = std::env::var("RUSTFLAGS").unwrap_or_default();
    let _flags = env
        .sh
        .push_env("RUSTFLAGS", format!("{flags} -C instrument-coverage"));
    let _target = env.sh.push_env("CARGO_TARGET_DIR", dir);
    // One file per program and process: a test may start others, or fork.
    let _profiles = env
        .sh
        .push_env("LLVM_PROFILE_FILE", profiles.join("%m-%p.profraw"));
    let what = [
        "--workspace",
        "--exclude",
        "xtask",
        "--exclude",
        "vsock-bench",
        "--all-features",
        "--locked",
    ];
    cmd!(env.sh, "cargo test {what...} --no-run").run()?;
    let built = cmd!(
        env.sh,
        "cargo test {what...} --no-run --message-format json"
    )
    .quiet()
    .ignore_stderr()
    .read()?;
    cmd!(
        env.sh,
        "cargo test {what...} --lib --bins --tests --no-fail-fast"
    )
    .run()?;
    let objects = programs(&built);
    if objects.is_empty() {
        bail!("cargo built no test");
    }
    Ok(objects)
}

/// The programs that cargo reports, in its JSON lines.
fn programs(messages: &str) -> Vec<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
        .collect()
}

/// Makes one profile of those that the programs left.
fn merge(env: &Env, llvm: &Llvm, dir: &Path) -> anyhow::Result<PathBuf> {
    let list: String = env
        .sh
        .read_dir(dir.join("profiles"))
        .context("no test left a profile")?
        .iter()
        .map(|file| format!("{}\n", file.display()))
        .collect();
    let inputs = dir.join("profiles.txt");
    env.sh.write_file(&inputs, list)?;
    let merged = dir.join("merged.profdata");
    let profdata = &llvm.profdata;
    // A process that a test kills leaves a torn profile, which is not worth failing for.
    cmd!(
        env.sh,
        "{profdata} merge --sparse --failure-mode=all --input-files={inputs} --output={merged}"
    )
    .run()?;
    Ok(merged)
}

#[cfg(test)]
mod tests {
    use super::programs;

    #[test]
    fn programs_are_what_cargo_says_it_built() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","executable":null}"#,
            "\n",
            r#"{"reason":"compiler-artifact","executable":"/t/a-1"}"#,
            "\nnot json\n",
        );
        assert_eq!(programs(messages), ["/t/a-1"].map(std::path::PathBuf::from));
    }
}
