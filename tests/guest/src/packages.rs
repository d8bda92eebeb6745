// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Debian programs that a test needs, with their libraries, unpacked into a directory but not
//! installed. They run under their own loader, so they do not depend on the machine's libraries.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use crate::kernel::apt;
use crate::place::Place;
use crate::tool::{self, Missing};

/// Debian 13.
const SUITE: &str = "trixie";
/// The library directories, relative to the root.
const LIBRARIES: [&str; 2] = [
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/x86_64-linux-gnu/systemd",
];
const LOADER: &str = "usr/lib64/ld-linux-x86-64.so.2";

/// Unpacked packages.
#[derive(Clone, Debug)]
pub(crate) struct Packages {
    root: PathBuf,
}

impl Packages {
    /// Downloads these packages and their dependencies once.
    ///
    /// # Errors
    ///
    /// [`Missing`] if they cannot be downloaded.
    pub(crate) fn fetch(place: &Place, names: &[&str]) -> anyhow::Result<Self> {
        let directory = place.directory(&format!("packages/{}", names.join("+")))?;
        let root = directory.join("root");
        let ready = directory.join("unpacked");
        if !ready.exists() {
            fs::remove_dir_all(&directory)?;
            fs::create_dir_all(&root)?;
            let files = download(&directory.join("apt"), names).with_context(|| {
                Missing::new(
                    format!("Debian's {} ({SUITE})", names.join(", ")),
                    "check the network and the machine's package sources",
                )
            })?;
            let what = format!("unpacking {} packages", files.len());
            vsock_report::step(&what, || {
                files.iter().try_for_each(|file| apt::unpack(file, &root))
            })?;
            fs::remove_dir_all(directory.join("apt/cache"))?;
            fs::write(&ready, "")?;
        }
        Ok(Self { root })
    }

    /// Returns a file's path from its path in the package, without the first slash.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Returns the words that run a program, for a shell.
    pub(crate) fn words(&self, program: &str) -> String {
        format!(
            "{} --library-path {} {}",
            self.path(LOADER).display(),
            self.library_path(),
            self.path(program).display()
        )
    }

    /// Returns the command that runs a program.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.path(LOADER));
        command
            .arg("--library-path")
            .arg(self.library_path())
            .arg(self.path(program));
        command
    }

    /// Returns the libraries that the programs need, as paths without the first slash.
    pub(crate) fn libraries(&self, programs: &[&str]) -> anyhow::Result<BTreeSet<String>> {
        let mut libraries = BTreeSet::new();
        for program in programs {
            let mut command = Command::new(self.path(LOADER));
            command
                .arg("--library-path")
                .arg(self.library_path())
                .arg("--list")
                .arg(self.path(program));
            let text = tool::output(&mut command)?;
            let text = String::from_utf8_lossy(&text).into_owned();
            for path in text.lines().filter_map(library) {
                let path = Path::new(path).strip_prefix(&self.root);
                let path = path.with_context(|| format!("{program} needs {text}"))?;
                libraries.insert(path.display().to_string());
            }
        }
        Ok(libraries)
    }

    fn library_path(&self) -> String {
        LIBRARIES
            .map(|name| self.path(name).display().to_string())
            .join(":")
    }
}

/// Returns the path in a line such as `libc.so.6 => /path/libc.so.6 (0x7f..)`.
fn library(line: &str) -> Option<&str> {
    Some(line.split_once(" => ")?.1.split_once(" (")?.0)
}

/// Downloads packages and their dependencies, as for a system that has no packages.
fn download(directory: &Path, names: &[&str]) -> anyhow::Result<Vec<PathBuf>> {
    for program in ["apt-get", "dpkg-deb"] {
        ensure!(tool::find(program).is_some(), "{program} is missing");
    }
    let configuration = apt::configure(directory, SUITE, None)?;
    let apt_get = |words: &[&str]| {
        let mut command = Command::new("apt-get");
        command.arg("-c").arg(&configuration).args(words);
        tool::output(&mut command)
    };
    println!("{}: searching Debian's suite {SUITE}", names.join(", "));
    apt_get(&["update", "--quiet"])?;
    let install = ["install", "--quiet", "--yes", "--no-install-recommends"];
    apt_get(&[&install[..], &["--download-only"], names].concat())?;
    let archives = directory.join("cache/archives");
    let files = fs::read_dir(archives)?.filter_map(|entry| Some(entry.ok()?.path()));
    Ok(files
        .filter(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::library;

    #[test]
    fn a_library_is_the_file_that_the_loader_found() {
        let line = "\tlibc.so.6 => /r/usr/lib/libc.so.6 (0x00007f)";
        assert_eq!(library(line), Some("/r/usr/lib/libc.so.6"));
        assert_eq!(library("\tlinux-vdso.so.1 (0x00007ffd)"), None);
    }
}
