// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `setup`: installs what the other commands need, where it may.
//!
//! Quick when everything is there. What it cannot install it names, with the line to run.

use anyhow::ensure;
use xshell::cmd;

use crate::cover::tools::Llvm;
use crate::guest::QEMU;
use crate::shell::{Env, Missing};
use crate::tools::{self, ACTIONLINT, TYPOS};

/// Something that a command needs.
struct Need {
    name: &'static str,
    present: fn(&Env) -> bool,
    install: fn(&Env) -> anyhow::Result<()>,
    /// The line to run by hand.
    hint: fn(&Env) -> String,
}

/// The table of needs. Beside these, the toolchain and a C linker are taken for granted.
const NEEDS: &[Need] = &[
    Need {
        name: "rustfmt",
        present: |env| answers(env, "fmt"),
        install: |env| component(env, "rustfmt"),
        hint: |_| "rustup component add rustfmt".to_owned(),
    },
    Need {
        name: "clippy",
        present: |env| answers(env, "clippy"),
        install: |env| component(env, "clippy"),
        hint: |_| "rustup component add clippy".to_owned(),
    },
    Need {
        name: Llvm::NAME,
        present: |env| Llvm::find(env).is_ok(),
        install: install_llvm,
        hint: Llvm::hint,
    },
    Need {
        name: ACTIONLINT.name,
        present: |env| ACTIONLINT.find(env).is_ok(),
        install: install_tools,
        hint: |_| ACTIONLINT.hint.to_owned(),
    },
    Need {
        name: TYPOS.name,
        present: |env| TYPOS.find(env).is_ok(),
        install: install_tools,
        hint: |_| TYPOS.hint.to_owned(),
    },
    Need {
        name: "strace",
        present: |_| Env::which("strace").is_some(),
        install: |env| apt(env, "strace"),
        hint: |_| "apt-get install strace".to_owned(),
    },
    Need {
        name: QEMU.0,
        present: |_| Env::which(QEMU.0).is_some(),
        install: |env| apt(env, "qemu-system-x86"),
        hint: |_| QEMU.1.to_owned(),
    },
];

/// Installs what is missing.
///
/// # Errors
///
/// [`Missing`] if something is missing still.
pub(crate) fn run(env: &Env) -> anyhow::Result<()> {
    let mut missing: Vec<&Need> = Vec::new();
    for need in NEEDS {
        if (need.present)(env) {
            println!("{}: there", need.name);
            continue;
        }
        println!("{}: installing", need.name);
        if let Err(error) = (need.install)(env) {
            println!("{}: {error:#}", need.name);
        }
        if !(need.present)(env) {
            missing.push(need);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let tool = missing
        .iter()
        .map(|need| need.name)
        .collect::<Vec<_>>()
        .join(", ");
    let hint = missing
        .iter()
        .map(|need| (need.hint)(env))
        .collect::<Vec<_>>()
        .join("; ");
    Err(Missing { tool, hint }.into())
}

fn answers(env: &Env, command: &str) -> bool {
    cmd!(env.sh, "cargo {command} --version")
        .quiet()
        .ignore_stdout()
        .ignore_stderr()
        .run()
        .is_ok()
}

fn component(env: &Env, name: &str) -> anyhow::Result<()> {
    ensure!(Env::which("rustup").is_some(), "there is no rustup");
    cmd!(env.sh, "rustup component add {name}").run()?;
    Ok(())
}

fn install_llvm(env: &Env) -> anyhow::Result<()> {
    // The package of the same major version, or the toolchain's own tools.
    if apt(env, &format!("llvm-{}", Llvm::major(env)?)).is_ok() {
        return Ok(());
    }
    component(env, "llvm-tools")
}

fn install_tools(env: &Env) -> anyhow::Result<()> {
    if tools::install(env).is_ok() {
        return Ok(());
    }
    // Debian has the module that makes environments in a package of its own.
    apt(env, "python3-venv")?;
    tools::install(env)
}

/// Installs a package of Debian's, if that may be done without asking.
fn apt(env: &Env, package: &str) -> anyhow::Result<()> {
    ensure!(Env::which("apt-get").is_some(), "there is no apt-get");
    ensure!(cmd!(env.sh, "id -u").quiet().read()? == "0", "not root");
    let _quiet = env.sh.push_env("DEBIAN_FRONTEND", "noninteractive");
    let install = || {
        let line = cmd!(
            env.sh,
            "apt-get install -y -qq --no-install-recommends {package}"
        );
        line.ignore_stdout().run()
    };
    // The lists of a fresh machine are empty or old.
    if install().is_err() {
        cmd!(env.sh, "apt-get update -qq").run()?;
        install()?;
    }
    Ok(())
}
