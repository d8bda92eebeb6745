// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a guest boots from: a kernel, and an initramfs with our program and the kernel's modules.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use cpio::NewcBuilder;
use cpio::newc::ModeFileType;

use crate::kernel::{Kernel, Module, Purpose, Version, VsockTest};
use crate::place::Place;
use crate::qemu;
use crate::tool;

/// The guest's programs. They are linked statically because the guest has no loader.
const INIT: &str = "guest-init";
const RPC: &str = "guest-rpc";
const STATIC: [&str; 4] = ["-C", "target-feature=+crt-static", "-C", "strip=symbols"];
/// The name of Linux's own test program in the guest.
pub(crate) const VSOCK_TEST: &str = "vsock_test";

/// The two files that QEMU boots.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) kernel: PathBuf,
    pub(crate) initramfs: PathBuf,
    /// The kernel's version.
    pub(crate) version: Version,
}

impl Image {
    /// Prepares both files, or reuses earlier ones.
    pub(crate) fn prepare(
        place: &Place,
        version: Version,
        mirror: Option<&str>,
    ) -> anyhow::Result<Self> {
        // Check for QEMU first: without it, the downloads would be useless.
        qemu::program()?;
        let kernel = Kernel::fetch(place, version, mirror, Purpose::Suite)?;
        let programs = [
            File::program("init", build(place, INIT)?),
            File::program("rpc", build(place, RPC)?),
        ];
        let bare = pack(&kernel.modules, &programs)?;
        // The initramfs contains a kernel and a smaller initramfs, for a guest that boots its
        // kernel again by kexec.
        let [init, rpc] = programs;
        let files = [
            init,
            rpc,
            File::data("boot/kernel", fs::read(&kernel.image)?),
            File::data("boot/initramfs", bare),
        ];
        let directory = place.directory(&format!("image/{}", version.name()))?;
        Self::write(directory, version, kernel, &files)
    }

    /// Prepares an image for Linux's own tests.
    pub(crate) fn of_kernel_tests(
        place: &Place,
        version: Version,
        mirror: Option<&str>,
        tests: &VsockTest,
    ) -> anyhow::Result<Self> {
        qemu::program()?;
        let kernel = Kernel::fetch(place, version, mirror, Purpose::KernelTests)?;
        let files = [
            File::program("init", build(place, INIT)?),
            File::program(VSOCK_TEST, fs::read(&tests.program)?),
        ];
        let directory = place.directory(&format!("image/{}-kernel-tests", version.name()))?;
        Self::write(directory, version, kernel, &files)
    }

    fn write(
        directory: PathBuf,
        version: Version,
        kernel: Kernel,
        files: &[File],
    ) -> anyhow::Result<Self> {
        let initramfs = directory.join("initramfs.cpio");
        // Replace the file in one step, because another run may be reading it.
        let part = tempfile::NamedTempFile::new_in(directory)?;
        fs::write(part.path(), pack(&kernel.modules, files)?)?;
        part.persist(&initramfs)?;
        Ok(Self {
            version,
            kernel: kernel.image,
            initramfs,
        })
    }
}

/// A file in the guest.
struct File {
    name: &'static str,
    mode: u32,
    contents: Vec<u8>,
}

impl File {
    fn program(name: &'static str, contents: Vec<u8>) -> Self {
        let mode = 0o755;
        Self {
            name,
            mode,
            contents,
        }
    }

    fn data(name: &'static str, contents: Vec<u8>) -> Self {
        let mode = 0o644;
        Self {
            name,
            mode,
            contents,
        }
    }
}

fn pack(modules: &[Module], files: &[File]) -> io::Result<Vec<u8>> {
    let mut archive = Vec::new();
    for directory in ["boot", "dev", "proc", "sys", "modules"] {
        let entry = NewcBuilder::new(directory).mode(0o755);
        add(
            &mut archive,
            entry.set_mode_file_type(ModeFileType::Directory),
            &[],
        )?;
    }
    // The kernel opens it as the standard streams of the first program, before any mount.
    let console = NewcBuilder::new("dev/console").rdev_major(5).rdev_minor(1);
    let console = console.mode(0o600).set_mode_file_type(ModeFileType::Char);
    add(&mut archive, console, &[])?;
    for file in files {
        let entry = NewcBuilder::new(file.name).mode(file.mode);
        add_file(&mut archive, entry, &file.contents)?;
    }
    for (place, Module { name, contents }) in modules.iter().enumerate() {
        let module = NewcBuilder::new(&format!("modules/{place:02}-{name}.ko")).mode(0o644);
        add_file(&mut archive, module, contents)?;
    }
    cpio::newc::trailer(archive)
}

fn add_file(archive: &mut Vec<u8>, entry: NewcBuilder, contents: &[u8]) -> io::Result<()> {
    add(
        archive,
        entry.set_mode_file_type(ModeFileType::Regular),
        contents,
    )
}

pub(crate) fn add(archive: &mut Vec<u8>, entry: NewcBuilder, contents: &[u8]) -> io::Result<()> {
    let len = contents.len().try_into().map_err(io::Error::other)?;
    let mut writer = entry.write(archive, len);
    writer.write_all(contents)?;
    writer.finish().map(drop)
}

/// Builds a program of this package, unless it is built already. Its flags apply to the last step
/// only, so its dependencies are the ones already built for this program.
fn build(place: &Place, program: &str) -> anyhow::Result<Vec<u8>> {
    if let Some(directory) = &place.programs {
        return read(&directory.join(program));
    }
    tool::show(
        Command::new("cargo")
            .args(["rustc", "--locked", "--release"])
            .args(["--package", env!("CARGO_PKG_NAME"), "--bin", program])
            .arg("--manifest-path")
            .arg(place.root.join("Cargo.toml"))
            .arg("--")
            .args(STATIC),
    )
    .with_context(|| format!("cannot build the guest's program {program}"))?;
    read(&place.target.join("release").join(program))
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
