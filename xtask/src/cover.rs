// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `cover`: runs all tests, and counts the lines of each crate that they reach, with
//! cargo-llvm-cov.
//!
//! The minimums apply to code that is published. A test module is always reached, so its lines and
//! those after it do not count.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::ensure;
use xshell::{PushEnv, cmd};

use crate::checks::bare_event_loop;
use crate::flags::Cover;
use crate::shell::{Env, Missing, is_program};
use crate::source::Source;
use crate::tools::LLVM_COV;

/// The minimum share of each crate's lines, in percent, that the tests reach. It is only ever
/// raised.
const FLOORS: &[(&str, f64)] = &[
    ("vsock-backend-api", 98.0),
    ("vsock-compliance", 93.0),
    ("vsock-epoll", 93.0),
    ("vsock-inner", 96.0),
    ("vsock-muxer", 97.0),
    ("vsock-proto", 99.0),
    ("vsock-siblings", 95.0),
    ("vsock-sockets", 93.0),
    ("vsock-tokio", 95.0),
    ("vsock-vhost-user", 90.0),
    ("vsock-virtio", 97.0),
];

/// All tests of the workspace.
pub(crate) const TESTS: [&str; 4] = [
    "--workspace",
    "--all-features",
    "--locked",
    "--no-fail-fast",
];

/// The tools that read the counts of the compiler's instrumentation.
const LLVM: [(&str, &str); 2] = [("LLVM_COV", "llvm-cov"), ("LLVM_PROFDATA", "llvm-profdata")];

/// Runs all tests and counts the lines that they reach.
///
/// # Errors
///
/// [`Missing`] without LLVM's tools or cargo-llvm-cov; otherwise a test has failed, or a crate is
/// below its minimum.
pub(crate) fn run(env: &Env, options: &Cover) -> anyhow::Result<()> {
    let _counting = counting(env)?;
    clean(env)?;
    run_and_report(env, options)
}

/// Builds what [`run_built`] runs.
///
/// # Errors
///
/// Same as [`run`].
pub(crate) fn build(env: &Env) -> anyhow::Result<()> {
    let _counting = counting(env)?;
    clean(env)?;
    cmd!(env.sh, "cargo test {TESTS...} --tests --no-run").run()?;
    Ok(())
}

/// Runs all tests after [`build`], with no page and no list. The examples in the documentation use
/// what is already built. They run after the report, because no minimum counts them.
///
/// # Errors
///
/// Same as [`run`].
pub(crate) fn run_built(env: &Env) -> anyhow::Result<()> {
    let _counting = counting(env)?;
    let (html, missed) = (false, false);
    let covered = run_and_report(env, &Cover { html, missed });
    let examples = cmd!(env.sh, "cargo test {TESTS...} --doc").run();
    let bare = bare_event_loop(env);
    covered?;
    examples?;
    Ok(bare?)
}

/// The directory in which `ci` builds.
pub(crate) fn directory(env: &Env) -> PathBuf {
    env.target.join("ci/build")
}

/// While the values exist, cargo builds programs that count what they reach. It wraps the compiler
/// for the workspace alone, so cargo knows these crates from those without counts, and both use the
/// same dependencies. `cfg(coverage)` lets such a program write its profile at its end, which its
/// sandbox would forbid.
fn counting(env: &Env) -> anyhow::Result<Vec<PushEnv<'_>>> {
    let tool = LLVM_COV.get(env)?;
    let llvm = llvm(env)?;
    let mut pushed: Vec<PushEnv<'_>> = LLVM
        .iter()
        .map(|(variable, name)| env.sh.push_env(variable, llvm.join(name)))
        .collect();
    // `clean` would also remove what the developer has built in the usual directory.
    pushed.push(env.sh.push_env("CARGO_TARGET_DIR", directory(env)));
    let variables = cmd!(env.sh, "{tool} llvm-cov show-env").quiet();
    for line in variables.ignore_stderr().read()?.lines() {
        if let Some((name, value)) = line.split_once('=') {
            let name = match name {
                "RUSTC_WRAPPER" => "RUSTC_WORKSPACE_WRAPPER",
                other => other,
            };
            pushed.push(env.sh.push_env(name, value.trim_matches('\'')));
        }
    }
    Ok(pushed)
}

/// Removes the programs of an earlier build, which would be counted, with sources that may be gone.
fn clean(env: &Env) -> anyhow::Result<()> {
    let tool = LLVM_COV.get(env)?;
    cmd!(env.sh, "{tool} llvm-cov clean --workspace").run()?;
    Ok(())
}

fn run_and_report(env: &Env, options: &Cover) -> anyhow::Result<()> {
    let (sh, tool) = (&env.sh, LLVM_COV.get(env)?);
    let passed = cmd!(sh, "cargo test {TESTS...} --tests").run();
    if options.html {
        cmd!(sh, "{tool} llvm-cov report --html").run()?;
    }
    // A process that a test kills leaves an incomplete profile, which is not a failure.
    let lcov = cmd!(sh, "{tool} llvm-cov report --lcov --failure-mode all").read()?;
    let rows = rows(env, &lcov)?;
    let low = under_floor(&rows, FLOORS);
    if options.missed || !low.is_empty() {
        let missed = rows.iter().flat_map(|row| &row.missed);
        missed.for_each(|place| println!("not reached: {place}"));
    }
    println!("{}", table(&rows, FLOORS));
    ensure!(passed.is_ok(), "a test failed");
    ensure!(low.is_empty(), "{}", low.join("; "));
    Ok(())
}

/// Returns the directory of LLVM's tools in the compiler's own version: from a component of the
/// toolchain, or from Debian's package.
///
/// # Errors
///
/// [`Missing`].
pub(crate) fn llvm(env: &Env) -> anyhow::Result<PathBuf> {
    let (host, major) = (env.rustc("host: ")?, llvm_major(env)?);
    let root = cmd!(env.sh, "rustc --print sysroot").quiet().read()?;
    let toolchain = Path::new(&root).join("lib/rustlib").join(host).join("bin");
    let debian = PathBuf::from(format!("/usr/lib/llvm-{major}/bin"));
    let has_all = |dir: &PathBuf| LLVM.iter().all(|(_, name)| is_program(&dir.join(name)));
    [toolchain, debian]
        .into_iter()
        .find(has_all)
        .ok_or_else(|| {
            let hint = format!("rustup component add llvm-tools (or apt-get install llvm-{major})");
            Missing::new("llvm-cov", hint).into()
        })
}

/// Returns the major version of the compiler's LLVM.
pub(crate) fn llvm_major(env: &Env) -> anyhow::Result<String> {
    let version = env.rustc("LLVM version: ")?;
    Ok(version.split('.').next().unwrap_or_default().to_owned())
}

/// The lines of a crate, without its tests.
#[derive(Debug, Default)]
struct Row {
    name: String,
    all: u32,
    hit: u32,
    /// The lines that no test reaches, as `path:first-last`.
    missed: Vec<String>,
}

impl Row {
    /// Returns the share in percent: 100 if there are no lines.
    fn share(&self) -> f64 {
        match self.all {
            0 => 100.0,
            all => 100.0 * f64::from(self.hit) / f64::from(all),
        }
    }

    /// Adds the lines of code among the first `production` lines of a file.
    fn add(&mut self, path: &str, lines: &BTreeMap<usize, bool>, production: usize) {
        let lines: Vec<(usize, bool)> = lines
            .range(..=production)
            .map(|(n, hit)| (*n, *hit))
            .collect();
        for run in lines.chunk_by(|a, b| a.1 == b.1) {
            let count = u32::try_from(run.len()).unwrap_or(u32::MAX);
            self.all += count;
            match run {
                [(line, false)] => self.missed.push(format!("{path}:{line}")),
                [(first, false), .., (last, _)] => {
                    self.missed.push(format!("{path}:{first}-{last}"));
                }
                _ => self.hit += count,
            }
        }
    }
}

/// Returns a row for each crate, from a tracefile of lcov.
fn rows(env: &Env, lcov: &str) -> anyhow::Result<Vec<Row>> {
    let mut rows: Vec<Row> = Vec::new();
    for name in env.crates()? {
        rows.push(Row {
            name,
            ..Row::default()
        });
    }
    for (path, lines) in files(lcov) {
        let Ok(path) = Path::new(path).strip_prefix(&env.root) else {
            continue;
        };
        let of_crate = |row: &&mut Row| path.starts_with(Path::new("crates").join(&row.name));
        if let Some(row) = rows.iter_mut().find(of_crate) {
            let name = path.display().to_string();
            let production = Source::new(&name, &env.sh.read_file(path)?).production;
            row.add(&name, &lines, production);
        }
    }
    Ok(rows)
}

/// The lines of each file that have code, and whether one of the programs reached them.
fn files(lcov: &str) -> BTreeMap<&str, BTreeMap<usize, bool>> {
    let mut files: BTreeMap<&str, BTreeMap<usize, bool>> = BTreeMap::new();
    let mut path = "";
    for line in lcov.lines() {
        if let Some(name) = line.strip_prefix("SF:") {
            path = name;
        } else if let Some((number, count)) = line
            .strip_prefix("DA:")
            .and_then(|line| line.split_once(','))
        {
            let number = number.parse().unwrap_or_default();
            *files.entry(path).or_default().entry(number).or_default() |= count != "0";
        }
    }
    files
}

fn table(rows: &[Row], floors: &[(&str, f64)]) -> String {
    let mut text = format!("{:<22}{:>16}{:>9}", "crate", "lines", "minimum");
    for row in rows {
        let floor = floors.iter().find(|(name, _)| *name == row.name);
        let floor = floor.map_or_else(|| "-".to_owned(), |(_, floor)| format!("{floor:.1} %"));
        let lines = format!("{:.1} % of {:>4}", row.share(), row.all);
        text += &format!("\n{:<22}{lines:>16}{floor:>9}", row.name);
    }
    text
}

/// Returns a sentence for each crate that is below its minimum, or that has a minimum but no code.
fn under_floor(rows: &[Row], floors: &[(&str, f64)]) -> Vec<String> {
    let complaint = |(name, floor): &(&str, f64)| {
        let share = rows
            .iter()
            .find(|row| row.name == *name && row.all > 0)
            .map(Row::share);
        match share {
            None => Some(format!("{name} has a minimum but no lines")),
            Some(share) if share < *floor => Some(format!(
                "{name} has {share:.2} % of lines; expected at least {floor} %"
            )),
            Some(_) => None,
        }
    };
    floors.iter().filter_map(complaint).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(lcov: &str, production: usize) -> Row {
        let mut row = Row {
            name: "a".to_owned(),
            ..Row::default()
        };
        row.add("a.rs", &files(lcov)["/r/a.rs"], production);
        row
    }

    #[test]
    fn every_line_counts_once_and_tests_do_not() {
        // Two programs have the file; line 9 is in its tests.
        let lcov =
            "SF:/r/a.rs\nFNDA:0,f\nDA:1,2\nDA:2,0\nDA:9,1\nend_of_record\nSF:/r/a.rs\nDA:1,0\n";
        let (all, before) = (row(lcov, 100), row(lcov, 8));
        assert_eq!((all.all, all.hit), (3, 2));
        assert_eq!((before.all, before.hit), (2, 1));
    }

    #[test]
    fn missed_lines_next_to_each_other_are_one_range() {
        let lcov = "SF:/r/a.rs\nDA:1,1\nDA:2,0\nDA:3,0\nDA:5,0\nDA:6,1\nDA:7,0\nDA:9,0\n";
        assert_eq!(row(lcov, 8).missed, ["a.rs:2-5", "a.rs:7"]);
    }

    #[test]
    fn a_crate_below_its_minimum_is_named() {
        let rows = |hit| {
            [Row {
                name: "a".to_owned(),
                all: 100,
                hit,
                missed: Vec::new(),
            }]
        };
        assert_eq!(
            under_floor(&rows(94), &[("a", 95.0)]),
            ["a has 94.00 % of lines; expected at least 95 %"]
        );
        assert_eq!(under_floor(&rows(95), &[("a", 95.0)]), [""; 0]);
        assert_eq!(
            under_floor(&rows(100), &[("b", 95.0)]),
            ["b has a minimum but no lines"]
        );
    }
}
