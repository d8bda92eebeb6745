// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Runs the targets under libFuzzer, which records the code that each input reaches, and keeps the
//! inputs that reach new code.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};
use xshell::cmd;

use super::PACKAGE;
use crate::shell::Env;

/// The flags with which a stable compiler records coverage. libFuzzer itself is a library.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";
const PROGRAM: &str = "vsock-fuzz-guided";
/// The compiler that libFuzzer needs.
const COMPILER: (&str, &str) = ("c++", "g++");
/// The limits of an input: bytes, seconds, and MiB of memory.
const LIMITS: [&str; 3] = ["-max_len=2048", "-timeout=60", "-rss_limit_mb=4096"];
/// The number of lines shown from the log of a failed target.
const SHOWN: usize = 40;

/// Runs one target, or all targets in turn. Inputs that reached new code stay in the build
/// directory, and the next run begins with them.
pub(super) fn run(
    env: &Env,
    target: Option<&str>,
    seconds: &str,
    seed: &str,
) -> anyhow::Result<()> {
    let corpus = env.root.join("tests/fuzz/corpus");
    let mut names = names(&corpus)?;
    if let Some(target) = target {
        let all = names.join(", ");
        names.retain(|name| name == target);
        ensure!(
            !names.is_empty(),
            "invalid target {target}: expected one of {all}"
        );
    }
    let directory = env.target.join("fuzz-guided");
    let program = build(env, &directory)?;
    let mut failed = Vec::new();
    for name in names {
        let place = directory.join("grown").join(&name);
        let logs = directory.join("logs");
        let seeds = corpus.join(&name);
        for directory in [&place, &logs] {
            fs::create_dir_all(directory)?;
        }
        let log = logs.join(format!("{name}.log"));
        println!("{name}: {seconds} s, log {}", log.display());
        let status = Command::new(&program)
            .args(LIMITS)
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-seed={seed}"))
            .arg(format!("-artifact_prefix={}/", seeds.display()))
            .arg("-print_final_stats=1")
            .args([&place, &seeds])
            .env("VSOCK_FUZZ_TARGET", &name)
            .stderr(File::create(&log)?)
            .status()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let text = fs::read_to_string(&log)?;
        println!("{}", summary(&name, &text));
        if !status.success() {
            let lines: Vec<_> = text.lines().collect();
            let first = lines.len().saturating_sub(SHOWN);
            println!("{}", lines[first..].join("\n"));
            failed.push(name);
        }
    }
    if !failed.is_empty() {
        bail!(
            "{} failed; the input is in tests/fuzz/corpus: commit it with the fix",
            failed.join(", ")
        );
    }
    Ok(())
}

/// Returns the targets: each has a directory in the corpus.
fn names(corpus: &Path) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(corpus)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn build(env: &Env, directory: &Path) -> anyhow::Result<PathBuf> {
    Env::require(COMPILER)?;
    let host = env.rustc("host: ")?;
    // With a target named, the flags do not apply to build scripts and macros.
    cmd!(
        env.sh,
        "cargo build --quiet {PACKAGE...} --bin {PROGRAM} --target {host}"
    )
    .env("CARGO_TARGET_DIR", directory)
    .env("RUSTFLAGS", FLAGS)
    .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
    .env_remove("CARGO_ENCODED_RUSTFLAGS")
    .run()?;
    Ok(directory.join(&host).join("release").join(PROGRAM))
}

/// Returns the executions and the coverage in libFuzzer's log.
fn summary(name: &str, log: &str) -> String {
    let statistic = |key: &str| {
        let line = log.lines().rev().find(|line| line.starts_with(key));
        line.and_then(|line| line.rsplit(' ').next()).unwrap_or("?")
    };
    let runs = statistic("stat::number_of_executed_units:");
    let line = log.lines().rev().find(|line| line.contains(" cov: "));
    let covered = line.and_then(|line| line.split(" cov: ").nth(1));
    let covered = covered.and_then(|rest| rest.split(' ').next());
    format!(
        "{name}: {runs} runs, {} places reached",
        covered.unwrap_or("?")
    )
}

#[cfg(test)]
mod tests {
    use super::summary;

    #[test]
    fn the_last_figures_in_a_log_count() {
        let log = "#2\tINITED cov: 10 ft: 11 corp: 1/1b exec/s: 0 rss: 34Mb\n\
                   #9\tNEW    cov: 12 ft: 14 corp: 2/3b lim: 4 exec/s: 0 rss: 34Mb\n\
                   Done 15 runs in 2 second(s)\nstat::number_of_executed_units: 15\n";
        assert_eq!(summary("muxer", log), "muxer: 15 runs, 12 places reached");
        assert_eq!(summary("muxer", ""), "muxer: ? runs, ? places reached");
    }
}
