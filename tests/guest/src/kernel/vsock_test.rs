// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Linux's own vsock tests (`tools/testing/vsock`) from Debian's package of the kernel source. The
//! downloaded, unpacked and compiled files stay in the build directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use super::apt::{self, Apt};
use super::{Version, files, name_of};
use crate::place::Place;
use crate::tool::{self, Missing};

/// The program's name, and its directory and headers in the source.
const PROGRAM: &str = "vsock_test";
const DIRECTORY: &str = "tools/testing/vsock";
const HEADERS: &str = "tools/include";
/// The programs that unpack and compile it.
const TOOLS: [&str; 4] = ["tar", "xz", "make", "cc"];

/// The statically linked test program, and the list of its tests.
#[derive(Clone, Debug)]
pub(crate) struct VsockTest {
    pub(crate) program: PathBuf,
    pub(crate) cases: Vec<Case>,
    /// The source's version, as the package names it.
    pub(crate) source: String,
}

/// One test.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Case {
    /// The number that selects the test.
    pub(crate) id: u32,
    pub(crate) name: String,
}

impl VsockTest {
    /// Builds the program, or reuses an earlier build.
    pub(crate) fn prepare(place: &Place, mirror: Option<&str>) -> anyhow::Result<Self> {
        for program in TOOLS {
            if tool::find(program).is_none() {
                return Err(Missing::new(
                    format!("{program}, which builds Linux's own tests,"),
                    "run: apt-get install tar xz-utils make gcc libc6-dev",
                )
                .into());
            }
        }
        let directory = place.directory("kernel-tests")?;
        let ready = directory.join("unpacked");
        if !ready.exists() {
            fs::remove_dir_all(&directory)?;
            fs::create_dir_all(&directory)?;
            fetch(&directory, mirror)?;
            fs::write(&ready, "")?;
        }
        let (source, tests) = find(&directory)?;
        compile(&tests)?;
        let program = tests.join(PROGRAM);
        Ok(Self {
            cases: listed(&program)?,
            program,
            source,
        })
    }
}

/// Downloads the newest source and unpacks only the tests, because the rest is a gigabyte.
fn fetch(directory: &Path, mirror: Option<&str>) -> anyhow::Result<()> {
    let debian = Version::NEWEST
        .debian()
        .context("no suite has the source")?;
    let apt = Apt::debian(apt::SOURCE, &directory.join("apt"), debian, mirror)?;
    let package = directory.join("package");
    fs::create_dir_all(&package)?;
    for file in apt.download(directory)? {
        apt::unpack(&file, &package)?;
        fs::remove_file(&file)?;
    }
    let archive = files(&package)?
        .into_iter()
        .find(|file| name_of(file).ends_with(".tar.xz"))
        .context("no archive in the package of the kernel's source")?;
    let name = name_of(&archive);
    let root = name.trim_end_matches(".tar.xz");
    vsock_report::step(&format!("{root}: unpacking {DIRECTORY}"), || {
        tool::run(
            Command::new("tar")
                .arg("-xf")
                .arg(&archive)
                .args([DIRECTORY, HEADERS].map(|part| format!("{root}/{part}")))
                .current_dir(directory),
        )
    })?;
    Ok(fs::remove_dir_all(package)?)
}

/// Returns the source's name and the directory of the tests.
fn find(directory: &Path) -> anyhow::Result<(String, PathBuf)> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let tests = path.join(DIRECTORY);
        if tests.is_dir() {
            return Ok((name_of(&path), tests));
        }
    }
    anyhow::bail!("no {DIRECTORY} below {}", directory.display())
}

/// Compiles the tests with their own makefile. Warnings of newer compilers are not errors.
fn compile(tests: &Path) -> anyhow::Result<()> {
    tool::run(
        Command::new("make")
            .args(["--silent", PROGRAM, "LDFLAGS=-static -s"])
            .args(["CPPFLAGS=-Wno-error -w"])
            .current_dir(tests),
    )
    .context("cannot compile Linux's own tests")
}

/// Returns the tests that the program lists.
fn listed(program: &Path) -> anyhow::Result<Vec<Case>> {
    // The exit status is ignored: the program treats `--list` as a wrong use and fails.
    let output = Command::new(program)
        .arg("--list")
        .output()
        .with_context(|| format!("cannot run {}", program.display()))?;
    let cases = cases(&String::from_utf8_lossy(&output.stdout));
    ensure!(!cases.is_empty(), "{} lists no tests", program.display());
    Ok(cases)
}

fn cases(text: &str) -> Vec<Case> {
    let case = |line: &str| {
        let (id, name) = line.split_once('\t')?;
        Some(Case {
            id: id.parse().ok()?,
            name: name.to_owned(),
        })
    };
    text.lines().filter_map(case).collect()
}

#[cfg(test)]
mod tests {
    use super::{Case, cases};

    #[test]
    fn a_list_is_read_without_its_heading() {
        let name = "SOCK_STREAM bind only".to_owned();
        assert_eq!(
            cases("ID\tTest name\n1\tSOCK_STREAM bind only\n"),
            [Case { id: 1, name }]
        );
    }
}
