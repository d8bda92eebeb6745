// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `ci`: all that a change must pass.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::shell::{Env, Missing};
use crate::tools::{ACTIONLINT, TYPOS};
use crate::{api, checks, demo, fuzz, guest, model, setup, tidy};

/// One step: its name and what it runs.
type Step = (&'static str, fn(&Env) -> anyhow::Result<()>);

/// The steps, quick ones first.
const STEPS: &[Step] = &[
    ("setup", setup::run),
    ("tidy", tidy::run),
    ("spell", |env| TYPOS.run(env, &[])),
    ("workflows", |env| ACTIONLINT.run(env, &[])),
    ("deny", checks::deny),
    ("lint", checks::lint),
    ("test", checks::test_and_cover),
    ("fuzz", fuzz::replay),
    ("doc", api::check),
    ("model", model::with_defaults),
    ("demo", demo::short),
    ("guest", guest::in_ci),
];

/// What is not run here.
const NIGHTLY: &str = "\
The workflow `deep` runs every night what is left out here: slow guest tests on the second device,
tests with programs of Debian's, other kernels, Linux's own tests, drop-in, memcheck, deeper models,
more cases of each property, guided fuzzing, and advisories.";

enum Outcome {
    Passed,
    Failed(String),
    LeftOut(String),
}

/// Runs every step, also after one has failed, and ends with a table.
pub(crate) fn run(env: &Env, strict: bool) -> anyhow::Result<ExitCode> {
    let mut rows = Vec::new();
    for (name, step) in STEPS {
        println!("\n==> {name}");
        let start = Instant::now();
        let outcome = judge(step(env), strict);
        if let Outcome::Failed(why) | Outcome::LeftOut(why) = &outcome {
            println!("{name}: {why}");
        }
        rows.push((*name, outcome, start.elapsed()));
    }
    println!("\n{NIGHTLY}");
    println!("\n{}", table(&rows));
    let failed = rows
        .iter()
        .any(|(_, outcome, _)| matches!(outcome, Outcome::Failed(_)));
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn judge(result: anyhow::Result<()>, strict: bool) -> Outcome {
    match result {
        Ok(()) => Outcome::Passed,
        Err(error) if !strict && error.is::<Missing>() => Outcome::LeftOut(format!("{error:#}")),
        Err(error) => Outcome::Failed(format!("{error:#}")),
    }
}

fn table(rows: &[(&str, Outcome, Duration)]) -> String {
    let mut text = format!("{:<12}{:<10}{:>9}\n", "step", "result", "seconds");
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for (name, outcome, time) in rows {
        let (word, why, count) = match outcome {
            Outcome::Passed => ("passed", "", &mut passed),
            Outcome::Failed(why) => ("FAILED", why.as_str(), &mut failed),
            Outcome::LeftOut(why) => ("left out", why.as_str(), &mut skipped),
        };
        *count += 1;
        let line = format!("{name:<12}{word:<10}{:>9.1}  {why}", time.as_secs_f64());
        text.push_str(line.trim_end());
        text.push('\n');
    }
    let total: Duration = rows.iter().map(|(_, _, time)| *time).sum();
    let total = format!("{:<22}{:>9.1}\n", "all", total.as_secs_f64());
    text + &total + &format!("{passed} passed, {failed} failed, {skipped} skipped")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing() -> anyhow::Error {
        Missing::new("llvm-cov", "get it").into()
    }

    #[test]
    fn a_missing_tool_leaves_the_step_out() {
        assert!(matches!(judge(Err(missing()), false), Outcome::LeftOut(_)));
    }

    #[test]
    fn a_missing_tool_fails_a_strict_run() {
        assert!(matches!(judge(Err(missing()), true), Outcome::Failed(_)));
    }

    #[test]
    fn any_other_error_fails_the_step() {
        assert!(matches!(
            judge(Err(anyhow::anyhow!("red")), false),
            Outcome::Failed(_)
        ));
    }

    #[test]
    fn the_table_ends_with_the_counts() {
        let second = Duration::from_secs(1);
        let rows = [
            ("lint", Outcome::Passed, second),
            ("test", Outcome::Failed("red".to_owned()), second),
            ("cover", Outcome::LeftOut("no llvm-cov".to_owned()), second),
        ];
        let table = table(&rows);
        assert!(
            table.contains("test        FAILED          1.0  red\n"),
            "{table}"
        );
        assert!(
            table.ends_with("all                         3.0\n1 passed, 1 failed, 1 skipped"),
            "{table}"
        );
    }
}
