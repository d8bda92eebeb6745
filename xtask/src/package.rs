// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `package`: the Debian package of the program, tested before it is handed out.
//!
//! `dpkg-deb` packs a directory that this command fills. `cargo-deb` would first have to be built
//! from source, which takes longer than building the package, and would still need the man pages,
//! the completions and the licences from here.
//!
//! The package has no scripts, so it can also be installed where nothing can run, such as the root
//! of an image. Template units need no scripts: no instance starts by itself.

mod control;
mod libraries;
mod pages;
mod trial;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use xshell::cmd;

use self::control::Control;
use crate::programs;
use crate::shell::{Env, Missing, is_program};

/// The name of the crate, of its program and of the package.
pub(crate) const NAME: &str = "vsock-vhost-user";
/// The directory of the systemd units, from the root of the repository.
const UNITS: &str = "crates/vsock-vhost-user/systemd";
/// The tool that packs a directory, and the Debian package that contains it.
const DPKG: (&str, &str) = ("dpkg-deb", "dpkg");

/// Builds the program and its package, and tests the package.
///
/// # Errors
///
/// [`Missing`] on a system without Debian's tools.
pub(crate) fn run(env: &Env) -> anyhow::Result<()> {
    require()?;
    let options = ["--release", "--locked", "--package", NAME, "--bin", NAME];
    cmd!(env.sh, "cargo build {options...}").run()?;
    pack_and_try(env, &env.target.join("release").join(NAME))
}

/// The same for `ci`, of the program that the guest suite uses.
pub(crate) fn in_ci(env: &Env) -> anyhow::Result<()> {
    require()?;
    pack_and_try(env, &programs::directory(env).join(NAME))
}

fn pack_and_try(env: &Env, built: &Path) -> anyhow::Result<()> {
    let package = pack(env, built)?;
    let tried = trial::run(env, &package);
    if tried.is_err() {
        // So that it is not mistaken for a working one.
        env.sh.remove_path(&package)?;
    }
    tried?;
    println!("{}", package.display());
    Ok(())
}

fn require() -> Result<(), Missing> {
    Env::require(DPKG)?;
    Env::require(("objdump", "binutils"))
}

/// Makes the package of a built program.
fn pack(env: &Env, built: &Path) -> anyhow::Result<PathBuf> {
    ensure!(is_program(built), "{} is not built", built.display());
    let work = env.target.join("debian");
    // Left by an earlier run.
    env.sh.remove_path(&work)?;
    let root = work.join("root");
    let usr = root.join("usr");
    let program = usr.join("bin").join(NAME);
    env.sh.create_dir(usr.join("bin"))?;
    cmd!(env.sh, "strip --strip-unneeded -o {program} {built}").run()?;
    units(env, &usr.join("lib/systemd/system"))?;

    let share = usr.join("share");
    cmd!(env.sh, "{built} generate {share}").run()?;
    for page in env.sh.read_dir(share.join("man/man1"))? {
        compress(env, &page)?;
    }
    let control = Control::read(env, &program)?;
    documents(env, &share.join("doc").join(NAME), &control)?;
    control.write(env, &root)?;

    cmd!(env.sh, "chmod -R u=rwX,go=rX {root}").run()?;
    let package = work.join(control.file_name());
    // The same sources make the same package: owners and times do not depend on the builder.
    cmd!(
        env.sh,
        "dpkg-deb --root-owner-group -Zxz --build {root} {package}"
    )
    .env("SOURCE_DATE_EPOCH", &control.epoch)
    .ignore_stdout()
    .run()?;
    Ok(package)
}

/// Copies the systemd units.
fn units(env: &Env, to: &Path) -> anyhow::Result<()> {
    env.sh.create_dir(to)?;
    let units = env.sh.read_dir(env.root.join(UNITS))?;
    ensure!(!units.is_empty(), "{UNITS} contains no unit");
    for unit in units {
        env.sh.copy_file(&unit, to)?;
    }
    Ok(())
}

/// Writes the documents in `/usr/share/doc`.
fn documents(env: &Env, to: &Path, control: &Control) -> anyhow::Result<()> {
    env.sh.create_dir(to)?;
    pages::copy(&env.root.join("docs"), to)?;
    env.sh
        .copy_file(env.root.join("CHANGELOG.md"), to.join("changelog"))?;
    env.sh
        .write_file(to.join("copyright"), control.copyright(env)?)?;
    env.sh
        .write_file(to.join("changelog.Debian"), control.changelog())?;
    env.sh
        .write_file(to.join("libraries"), libraries::licences(env)?)?;
    for name in ["changelog", "changelog.Debian", "libraries"] {
        compress(env, &to.join(name))?;
    }
    Ok(())
}

/// Compresses a file in place, without its name and time.
fn compress(env: &Env, file: &Path) -> anyhow::Result<()> {
    cmd!(env.sh, "gzip -9 -n {file}").quiet().run()?;
    Ok(())
}

/// Returns the sorted paths of all files in a directory, relative to it.
fn files(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(next) = dirs.pop() {
        for entry in fs::read_dir(&next).with_context(|| next.display().to_string())? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                dirs.push(entry.path());
            } else {
                found.push(entry.path().strip_prefix(dir)?.to_owned());
            }
        }
    }
    found.sort();
    Ok(found)
}
