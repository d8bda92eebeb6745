// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Installs a package into a directory, uses it and removes it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use serde_json::Value;
use xshell::cmd;

use super::{NAME, files, pages};
use crate::shell::Env;

/// The files that the package must contain, from the root.
const FILES: [&str; 11] = [
    "usr/bin/vsock-vhost-user",
    UNIT,
    "usr/lib/systemd/system/vsock-vhost-user@.socket",
    "usr/share/bash-completion/completions/vsock-vhost-user",
    "usr/share/doc/vsock-vhost-user/changelog.gz",
    "usr/share/doc/vsock-vhost-user/copyright",
    "usr/share/doc/vsock-vhost-user/libraries.gz",
    "usr/share/doc/vsock-vhost-user/program.md",
    "usr/share/man/man1/vsock-vhost-user-connect.1.gz",
    MAN_PAGE,
    DESCRIPTION,
];
const UNIT: &str = "usr/lib/systemd/system/vsock-vhost-user@.service";
const MAN_PAGE: &str = "usr/share/man/man1/vsock-vhost-user.1.gz";
const DESCRIPTION: &str = "usr/share/qemu/vhost-user/50-vsock-vhost-user.json";

/// Tests the package. The system's own package database is neither read nor changed.
pub(super) fn run(env: &Env, package: &Path) -> anyhow::Result<()> {
    let root = env.sh.create_temp_dir()?;
    let trial = Trial {
        env,
        root: root.path().to_owned(),
    };
    trial.dpkg(
        "--install",
        package
            .as_os_str()
            .to_str()
            .context("the path is not valid UTF-8")?,
    )?;
    trial.has_its_files()?;
    trial.pages_link_to_each_other()?;
    trial.program_runs()?;
    trial.unit_starts_it()?;
    trial.is_described()?;
    trial.man_page_is_read()?;
    trial.dpkg("--purge", NAME)?;
    let left = trial.files()?;
    ensure!(left.is_empty(), "the removed package left {left:?} behind");
    Ok(())
}

struct Trial<'a> {
    env: &'a Env,
    root: PathBuf,
}

impl Trial<'_> {
    fn dpkg(&self, action: &str, what: &str) -> anyhow::Result<()> {
        let (sh, root) = (&self.env.sh, &self.root);
        let database = root.join("var/lib/dpkg");
        for dir in ["info", "triggers", "updates"] {
            sh.create_dir(database.join(dir))?;
        }
        // The directory has no libraries, the user may not be root, and images may omit documents.
        let options = [
            "--force-depends",
            "--force-not-root",
            "--force-bad-path",
            "--path-include=/*",
            "--log=/dev/null",
        ];
        cmd!(sh, "dpkg --root {root} {options...} {action} {what}")
            .ignore_stdout()
            .ignore_stderr()
            .run()?;
        Ok(())
    }

    /// Returns all files except those of dpkg itself.
    fn files(&self) -> anyhow::Result<Vec<PathBuf>> {
        let all = files(&self.root)?;
        Ok(all
            .into_iter()
            .filter(|file| !file.starts_with("var"))
            .collect())
    }

    fn has_its_files(&self) -> anyhow::Result<()> {
        let files = self.files()?;
        let missing = FILES
            .iter()
            .find(|file| !files.iter().any(|other| other == Path::new(file)));
        ensure!(missing.is_none(), "the package lacks {missing:?}");
        Ok(())
    }

    fn pages_link_to_each_other(&self) -> anyhow::Result<()> {
        let dead = pages::dead_links(&self.root.join("usr/share/doc").join(NAME))?;
        ensure!(
            dead.is_empty(),
            "links of the package lead nowhere: {dead:?}"
        );
        Ok(())
    }

    fn program_runs(&self) -> anyhow::Result<()> {
        let (sh, program) = (&self.env.sh, self.root.join("usr/bin").join(NAME));
        let version = cmd!(sh, "{program} --version").quiet().read()?;
        ensure!(
            version.starts_with(NAME),
            "the program reports the version {version:?}"
        );
        let (socket, uds) = (self.root.join("vhost.sock"), self.root.join("vm.vsock"));
        let guest = ["--guest-cid", "3", "--socket"];
        cmd!(sh, "{program} --check {guest...} {socket} --uds-path {uds}")
            .ignore_stdout()
            .run()?;
        Ok(())
    }

    /// Checks that the program accepts the options in its unit, here for guest 3.
    fn unit_starts_it(&self) -> anyhow::Result<()> {
        let unit = fs::read_to_string(self.root.join(UNIT))?;
        let mut lines = unit.lines();
        let line = lines.find_map(|line| line.strip_prefix("ExecStart=/"));
        let line = line.with_context(|| format!("{UNIT} starts no program"))?;
        let line = line.replace("%i", "3").replace("$OPTIONS", "");
        let mut words = line.split_whitespace();
        let program = self.root.join(words.next().unwrap_or_default());
        cmd!(self.env.sh, "{program} --check {words...}")
            .ignore_stdout()
            .run()?;
        Ok(())
    }

    /// Checks that management software for QEMU finds the program.
    fn is_described(&self) -> anyhow::Result<()> {
        let text = fs::read_to_string(self.root.join(DESCRIPTION))?;
        let description: Value = serde_json::from_str(&text)?;
        let binary = description["binary"].as_str().unwrap_or_default();
        let file = self.root.join(binary.trim_start_matches('/'));
        ensure!(
            file.is_file(),
            "{DESCRIPTION} names {binary}, which does not exist"
        );
        Ok(())
    }

    fn man_page_is_read(&self) -> anyhow::Result<()> {
        let (sh, page) = (&self.env.sh, self.root.join(MAN_PAGE));
        let source = cmd!(sh, "gzip -dc {page}").quiet().read()?;
        ensure!(source.contains(".TH"), "{MAN_PAGE} is not a man page");
        if Env::which("man").is_some() {
            let text = cmd!(sh, "man -l {page}")
                .env("MANPAGER", "cat")
                .quiet()
                .read()?;
            ensure!(
                text.contains("--version"),
                "the rendered {MAN_PAGE} contains no option"
            );
        }
        Ok(())
    }
}
