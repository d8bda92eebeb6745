// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `setup`: installs the tools that the other commands need.
//!
//! It is quick if everything is installed. For a tool that it cannot install, it prints the command
//! to run.

use anyhow::ensure;
use xshell::cmd;

use crate::cover;
use crate::guest::QEMU;
use crate::shell::{Env, Missing};
use crate::tools::{self, Tool};

/// Where a tool comes from.
#[derive(Clone, Copy)]
enum Origin {
    /// A component of the toolchain, by name.
    Component(&'static str),
    /// A Debian package.
    Debian(&'static str),
    /// A Debian package of the compiler's version, or a component.
    Llvm,
    /// Our own list.
    List(Tool),
}

/// Returns the tools that the commands need, in addition to the toolchain and a C linker.
fn needs() -> impl Iterator<Item = (&'static str, Origin)> {
    let fixed = [
        ("rustfmt", Origin::Component("rustfmt")),
        ("clippy", Origin::Component("clippy")),
        ("llvm-cov", Origin::Llvm),
        (QEMU.0, Origin::Debian(QEMU.1)),
    ];
    fixed
        .into_iter()
        .chain(Tool::ALL.map(|tool| (tool.name, Origin::List(tool))))
}

/// Installs the missing tools.
///
/// # Errors
///
/// [`Missing`] if a tool is still missing.
pub(crate) fn run(env: &Env) -> anyhow::Result<()> {
    let mut missing = Vec::new();
    for (name, origin) in needs() {
        if is_present(env, name, origin) {
            println!("{name}: present");
            continue;
        }
        println!("{name}: installing");
        if let Err(error) = install(env, origin) {
            println!("{name}: {error:#}");
        }
        if !is_present(env, name, origin) {
            missing.push((name, hint(env, origin)));
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let (tools, hints): (Vec<_>, Vec<_>) = missing.into_iter().unzip();
    Err(Missing::new(tools.join(", "), hints.join("; ")).into())
}

fn is_present(env: &Env, name: &str, origin: Origin) -> bool {
    match origin {
        Origin::Component(name) => {
            let command = name.trim_start_matches("rust");
            let version = cmd!(env.sh, "cargo {command} --version").quiet();
            version.ignore_stdout().ignore_stderr().run().is_ok()
        }
        Origin::Debian(_) => Env::which(name).is_some(),
        Origin::Llvm => cover::llvm(env).is_ok(),
        Origin::List(tool) => tool.find(env).is_some(),
    }
}

fn install(env: &Env, origin: Origin) -> anyhow::Result<()> {
    match origin {
        Origin::Component(name) => component(env, name),
        Origin::Debian(package) => apt(env, package),
        Origin::Llvm => {
            let package = format!("llvm-{}", cover::llvm_major(env)?);
            apt(env, &package).or_else(|_| component(env, "llvm-tools"))
        }
        // Debian has the module that creates environments in a separate package.
        Origin::List(_) => tools::install(env).or_else(|_| {
            apt(env, "python3-venv")?;
            tools::install(env)
        }),
    }
}

/// Returns the line to run by hand.
fn hint(env: &Env, origin: Origin) -> String {
    match origin {
        Origin::Component(name) => format!("rustup component add {name}"),
        Origin::Debian(package) => format!("apt-get install --no-install-recommends {package}"),
        Origin::Llvm => {
            let missing = cover::llvm(env).map_err(anyhow::Error::downcast::<Missing>);
            match missing {
                Err(Ok(missing)) => missing.hint,
                _ => "rustup component add llvm-tools".to_owned(),
            }
        }
        Origin::List(tool) => tool.hint.to_owned(),
    }
}

fn component(env: &Env, name: &str) -> anyhow::Result<()> {
    ensure!(Env::which("rustup").is_some(), "rustup is not installed");
    cmd!(env.sh, "rustup component add {name}").run()?;
    Ok(())
}

/// Installs a Debian package, if this is possible without asking the user.
fn apt(env: &Env, package: &str) -> anyhow::Result<()> {
    ensure!(Env::which("apt-get").is_some(), "apt-get is not installed");
    ensure!(
        cmd!(env.sh, "id -u").quiet().read()? == "0",
        "cannot install {package}: this requires root"
    );
    let _quiet = env.sh.push_env("DEBIAN_FRONTEND", "noninteractive");
    let install = || {
        let options = ["-y", "-qq", "--no-install-recommends"];
        let line = cmd!(env.sh, "apt-get install {options...} {package}");
        line.ignore_stdout().run()
    };
    // On a fresh machine the package lists are empty or old.
    if install().is_err() {
        cmd!(env.sh, "apt-get update -qq").run()?;
        install()?;
    }
    Ok(())
}
