// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `cover`: what the tests reach.
//!
//! The tests are built with the compiler's own instrumentation and the counters are read by LLVM's
//! tools. Code that is itself a test does not count: a test module is always covered.

mod figures;
mod report;
pub(crate) mod tools;

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use xshell::cmd;

use crate::flags::Cover;
use crate::shell::Env;
use report::Report;
use tools::Llvm;

/// The least share of lines, in percent, that each crate's tests reach. Only ever raised.
const FLOORS: &[(&str, f64)] = &[
    ("vsock-backend-api", 95.0),
    ("vsock-compliance", 70.0),
    ("vsock-epoll", 92.0),
    ("vsock-inner", 95.0),
    ("vsock-muxer", 95.0),
    ("vsock-proto", 97.0),
    ("vsock-vhost-user", 85.0),
    ("vsock-virtio", 93.0),
];

pub(crate) fn run(env: &Env, options: &Cover) -> anyhow::Result<()> {
    let llvm = Llvm::find(env)?;
    let dir = env.target.join("cover");
    let (objects, passed) = run_tests(env, &dir)?;
    let profile = merge(env, &llvm, &dir)?;
    let report = Report::new(env, &llvm, &profile, &objects)?;
    if options.html {
        println!("{}", report.html(&dir.join("html"))?.display());
    }
    let rows = report.rows(&env.crates()?)?;
    let low = report::under_floor(&rows, FLOORS);
    if options.missed || !low.is_empty() {
        rows.iter()
            .flat_map(|row| &row.missed)
            .for_each(|place| println!("not reached: {place}"));
    }
    println!("{}", report::table(&rows, FLOORS));
    ensure!(passed, "a test failed");
    ensure!(low.is_empty(), "{}", low.join("; "));
    Ok(())
}

/// Builds and runs the tests; gives back their programs, and whether they passed.
fn run_tests(env: &Env, dir: &Path) -> anyhow::Result<(Vec<PathBuf>, bool)> {
    let profiles = dir.join("profiles");
    env.sh.remove_path(&profiles)?;
    let flags = env.sh.var("RUSTFLAGS").unwrap_or_default();
    let flags = format!("{flags} -C instrument-coverage");
    // One file per program and process: a test may start others, or fork.
    let files = profiles.join("%m-%p.profraw");
    let _flags = env.sh.push_env("RUSTFLAGS", flags.trim());
    let _target = env.sh.push_env("CARGO_TARGET_DIR", dir);
    let _profiles = env.sh.push_env("LLVM_PROFILE_FILE", files);
    let mut what = vec![
        "--tests".to_owned(),
        "--all-features".to_owned(),
        "--locked".to_owned(),
    ];
    for name in env.crates()?.into_iter().chain(["vsock-tests".to_owned()]) {
        what.extend(["--package".to_owned(), name]);
    }
    let what = &what;
    let messages = "json-render-diagnostics";
    let built = cmd!(
        env.sh,
        "cargo test {what...} --no-run --message-format {messages}"
    )
    .read()?;
    let objects = programs(&built);
    ensure!(!objects.is_empty(), "cargo built no test");
    let passed = cmd!(env.sh, "cargo test {what...} --no-fail-fast")
        .run()
        .is_ok();
    Ok((objects, passed))
}

/// The programs that cargo reports, in its JSON lines.
fn programs(messages: &str) -> Vec<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
        .collect()
}

/// With no page and no list, as `ci` runs it.
pub(crate) fn with_defaults(env: &Env) -> anyhow::Result<()> {
    run(
        env,
        &Cover {
            html: false,
            missed: false,
        },
    )
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
