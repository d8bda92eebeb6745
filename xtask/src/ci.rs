// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `ci`: everything that a change must pass.
//!
//! Each step is a separate process, this program with the step's name. So steps can run side by
//! side, and the output of each is shown in one piece. [`plan`] decides which step runs when.

mod plan;
mod table;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Instant;

use anyhow::{Context, bail};

use self::plan::{Load, Plan};
use self::table::{Outcome, Row, table};
use crate::shell::{Env, Missing};
use crate::tools::TYPOS;
use crate::{api, checks, demo, flags, guest, model, package, programs, publish, setup, tidy};

/// A part of the run.
struct Step {
    name: &'static str,
    load: Load,
    /// The steps that must end first: they install or build what this one uses, or would hold the
    /// same build directory.
    after: &'static [&'static str],
    run: fn(&Env) -> anyhow::Result<()>,
}

impl plan::Step for Step {
    fn load(&self) -> Load {
        self.load
    }

    fn after(&self) -> &[&str] {
        self.after
    }

    fn name(&self) -> &str {
        self.name
    }
}

const fn step(
    name: &'static str,
    load: Load,
    after: &'static [&'static str],
    run: fn(&Env) -> anyhow::Result<()>,
) -> Step {
    Step {
        name,
        load,
        after,
        run,
    }
}

/// All steps. The first one that can run starts first, so those before long steps come first.
const STEPS: &[Step] = &[
    step("setup", Load::Light, &[], setup::run),
    step("tidy", Load::Light, &["setup"], tidy::run),
    step("spell", Load::Light, &["setup"], |env| TYPOS.run(env, &[])),
    step("workflows", Load::Light, &["setup"], checks::workflows),
    step("deny", Load::Light, &["setup"], checks::deny),
    step("crates", Load::Light, &["setup"], publish::contents),
    step("unused", Load::Light, &["setup"], checks::unused),
    step("programs", Load::Build, &["setup"], programs::build),
    step("tests", Load::Build, &["programs"], checks::build_tests),
    step("guest", Load::Timed, &["programs"], guest::on_our_program),
    step("test", Load::Timed, &["tests"], checks::test_and_cover),
    step("in-process", Load::Timed, &["programs"], guest::in_process),
    step("demo", Load::Timed, &["programs"], demo::short),
    step("package", Load::Timed, &["programs"], package::in_ci),
    step("model", Load::Spare, &["setup"], model::with_defaults),
    step("lint", Load::Spare, &["setup"], checks::lint),
    step("doc", Load::Spare, &["lint"], api::check),
];

/// What `ci` does not run.
const NIGHTLY: &str = "\
Not run here, but every night by the workflow `deep`: slow guest tests on the second device, tests
with Debian's programs, other kernels, Linux's own tests, drop-in, memcheck, Miri, sanitizers,
deeper models, more cases of every property, guided fuzzing, single features, minimal versions,
packages built as their users build them, and advisories. The workflow `ci` also runs msrv.";

/// The exit code of a step whose tool is missing, as in automake.
const LEFT_OUT: u8 = 77;

/// Runs every step, even after one has failed, and prints a table.
///
/// # Errors
///
/// There is no step of the given name, or none could be started.
pub(crate) fn run(env: &Env, options: &flags::Ci) -> anyhow::Result<ExitCode> {
    if let Some(name) = &options.step {
        return here(env, name);
    }
    let start = Instant::now();
    let rows = side_by_side(env, options.strict)?;
    println!("\n{NIGHTLY}");
    println!("\n{}", table(&rows, start.elapsed()));
    let failed = rows
        .iter()
        .any(|row| matches!(row.outcome, Outcome::Failed(_)));
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Runs one step in this process.
fn here(env: &Env, name: &str) -> anyhow::Result<ExitCode> {
    let Some(step) = STEPS.iter().find(|step| step.name == name) else {
        let names: Vec<&str> = STEPS.iter().map(|step| step.name).collect();
        bail!("invalid step {name}: expected one of {}", names.join(", "));
    };
    Ok(match (step.run)(env) {
        Ok(()) => ExitCode::SUCCESS,
        // The table shows the last line as the reason.
        Err(error) => {
            println!("{error:#}");
            if error.is::<Missing>() {
                ExitCode::from(LEFT_OUT)
            } else {
                ExitCode::FAILURE
            }
        }
    })
}

/// Runs all steps as planned. The rows are in the order of the table of steps.
fn side_by_side(env: &Env, strict: bool) -> anyhow::Result<Vec<Row>> {
    let launcher = Launcher::new(env)?;
    let clock = Instant::now();
    let mut rows: Vec<Option<Row>> = STEPS.iter().map(|_| None).collect();
    let mut plan = Plan::new(STEPS);
    let (sender, ended) = channel();
    let mut running = 0;
    loop {
        while let Some(index) = plan.start() {
            println!("{} {}: started", since(clock), STEPS[index].name);
            launcher.start(index, strict, sender.clone())?;
            running += 1;
        }
        if running == 0 {
            return Ok(rows.into_iter().flatten().collect());
        }
        let (index, row): (usize, Row) = ended.recv()?;
        running -= 1;
        plan.end(index);
        println!("\n==> {}", row.name);
        print!("{}", launcher.output(row.name));
        let (word, why) = row.words();
        let took = row.time.as_secs_f64();
        let line = format!(
            "{} {}: {word} in {took:.1} s  {why}",
            since(clock),
            row.name
        );
        println!("{}", line.trim_end());
        rows[index] = Some(row);
    }
}

/// The time since the start, in minutes and seconds.
fn since(clock: Instant) -> String {
    let seconds = clock.elapsed().as_secs();
    format!("[{:>3}:{:02}]", seconds / 60, seconds % 60)
}

/// Starts steps as processes.
struct Launcher {
    program: PathBuf,
    logs: PathBuf,
}

impl Launcher {
    fn new(env: &Env) -> anyhow::Result<Self> {
        let logs = env.target.join("ci");
        fs::create_dir_all(&logs)?;
        Ok(Self {
            // Its path now, because a step may build it again.
            program: std::env::current_exe()?,
            logs,
        })
    }

    fn log(&self, name: &str) -> PathBuf {
        self.logs.join(name).with_extension("log")
    }

    /// Returns everything that a step has printed.
    fn output(&self, name: &str) -> String {
        let bytes = fs::read(self.log(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Starts a step. Its row is sent when it has ended.
    fn start(&self, index: usize, strict: bool, ended: Sender<(usize, Row)>) -> anyhow::Result<()> {
        let Step { name, load, .. } = STEPS[index];
        let start = Instant::now();
        let path = self.log(name);
        let mut child = command(&self.program, name, load, &path)?
            .spawn()
            .with_context(|| format!("cannot start the step {name}"))?;
        thread::spawn(move || {
            let status = child.wait();
            let text = fs::read(&path).unwrap_or_default();
            let outcome = match status {
                Ok(status) => judge(status.code(), &String::from_utf8_lossy(&text), strict),
                Err(error) => Outcome::Failed(error.to_string()),
            };
            let time = start.elapsed();
            // The receiver lives until all steps have ended.
            ended
                .send((
                    index,
                    Row {
                        name,
                        outcome,
                        time,
                    },
                ))
                .ok();
        });
        Ok(())
    }
}

/// Returns this program with a step's name.
fn command(program: &Path, name: &str, load: Load, log: &Path) -> anyhow::Result<Command> {
    let mut command = Command::new("nice");
    command
        .args(["-n", &load.niceness().to_string()])
        .arg(program);
    let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    command
        .args(["ci", "--step", name])
        // `ci` builds each crate once, so incremental builds would gain nothing.
        .env("CARGO_INCREMENTAL", "0")
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file);
    Ok(command)
}

/// Interprets a step's exit code. The reason is the last line of its output.
fn judge(code: Option<i32>, output: &str, strict: bool) -> Outcome {
    let reason = || {
        let line = output.lines().rfind(|line| !line.trim().is_empty());
        line.unwrap_or("no output").trim().to_owned()
    };
    match code {
        Some(0) => Outcome::Passed,
        Some(code) if code == i32::from(LEFT_OUT) && !strict => Outcome::LeftOut(reason()),
        Some(_) => Outcome::Failed(reason()),
        None => Outcome::Failed("a signal ended it".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MISSING: &str = "$ cargo llvm-cov\nllvm-cov is missing; run: get it\n\n";

    #[test]
    fn a_missing_tool_skips_the_step() {
        let reason = "llvm-cov is missing; run: get it".to_owned();
        let outcome = judge(Some(77), MISSING, false);
        assert_eq!(outcome, Outcome::LeftOut(reason));
    }

    #[test]
    fn a_missing_tool_fails_a_strict_run() {
        assert!(matches!(judge(Some(77), MISSING, true), Outcome::Failed(_)));
    }

    #[test]
    fn any_other_exit_code_or_signal_fails_the_step() {
        assert_eq!(
            judge(Some(1), "a\nred\n", false),
            Outcome::Failed("red".to_owned())
        );
        assert!(matches!(judge(None, "", false), Outcome::Failed(_)));
    }

    #[test]
    fn every_step_follows_steps_in_the_table() {
        let names: Vec<&str> = STEPS.iter().map(|step| step.name).collect();
        for (index, step) in STEPS.iter().enumerate() {
            for before in step.after {
                assert!(names.contains(before), "{} after {before}", step.name);
            }
            assert!(!names[..index].contains(&step.name), "{}", step.name);
        }
    }
}
