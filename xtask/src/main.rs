// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The tasks of this repository. `cargo xtask help` lists them.
//!
//! Each command is a function that takes a [`shell::Env`], in a separate file. Tables list the
//! steps of [`ci`], the rules of [`tidy`] and the tools that [`setup`] installs.

#![forbid(unsafe_code)]
#![expect(
    clippy::print_stdout,
    reason = "a command line tool prints its results"
)]

mod api;
mod bench;
mod checks;
mod ci;
mod cover;
mod demo;
mod drop_in;
mod flags;
mod foreground;
mod fuzz;
mod guest;
mod manifests;
mod memcheck;
mod model;
mod msrv;
mod nightly;
mod package;
mod programs;
mod publish;
mod setup;
mod shell;
mod source;
mod tidy;
mod tools;

use std::process::ExitCode;

use anyhow::bail;
use flags::{Xtask, XtaskCmd};
use shell::Env;
use tools::TYPOS;

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            println!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<ExitCode> {
    let env = Env::new()?;
    let mut words = std::env::args_os().skip(1);
    match words.next().unwrap_or_default().to_str() {
        // These programs parse their own arguments.
        Some("demo") => return demo::run(&env, words),
        Some("bench") => return bench::run(&env, words),
        Some("guest") => return guest::run(&env, "suite", words),
        Some("" | "-h" | "--help") => {
            println!("{}", flags::HELP);
            return Ok(ExitCode::SUCCESS);
        }
        _ => {}
    }
    let command = match Xtask::from_env() {
        Err(error) if !error.is_help() => bail!("{error}; run: cargo xtask help"),
        other => other.unwrap_or_else(|help| help.exit()).subcommand,
    };
    match command {
        XtaskCmd::Ci(options) => return ci::run(&env, &options),
        XtaskCmd::Lint(options) => {
            if options.fix {
                checks::mend(&env)?;
            }
            checks::lint(&env)?;
        }
        XtaskCmd::Test(_) => checks::test(&env)?,
        XtaskCmd::Tidy(_) => tidy::run(&env)?,
        XtaskCmd::Model(options) => model::run(&env, &options)?,
        XtaskCmd::Memcheck(_) => memcheck::run(&env)?,
        XtaskCmd::Msrv(_) => msrv::run(&env)?,
        XtaskCmd::Miri(_) => nightly::miri(&env)?,
        XtaskCmd::Sanitize(options) => nightly::sanitize(&env, &options)?,
        XtaskCmd::Features(_) => manifests::features(&env)?,
        XtaskCmd::Minimal(_) => manifests::minimal(&env)?,
        XtaskCmd::Publish(_) => publish::run(&env)?,
        XtaskCmd::Cover(options) => cover::run(&env, &options)?,
        XtaskCmd::Fuzz(options) => fuzz::run(&env, &options)?,
        XtaskCmd::Deny(options) if options.advisories => checks::deny_with_advisories(&env)?,
        XtaskCmd::Deny(_) => checks::deny(&env)?,
        XtaskCmd::Doc(_) => checks::doc(&env)?,
        XtaskCmd::DropIn(_) => drop_in::run(&env)?,
        XtaskCmd::Package(_) => package::run(&env)?,
        XtaskCmd::Api(_) => api::write(&env)?,
        XtaskCmd::Unused(_) => checks::unused(&env)?,
        XtaskCmd::Workflows(_) => checks::workflows(&env)?,
        XtaskCmd::Spell(_) => TYPOS.run(&env, &[])?,
        XtaskCmd::Setup(_) => setup::run(&env)?,
        XtaskCmd::Help(_) | XtaskCmd::Demo(_) | XtaskCmd::Bench(_) | XtaskCmd::Guest(_) => {
            println!("{}", flags::HELP);
        }
    }
    Ok(ExitCode::SUCCESS)
}
