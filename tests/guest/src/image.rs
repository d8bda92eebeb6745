// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the guest boots from: the kernel, and a file system that holds our program and the modules.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;
use cpio::NewcBuilder;
use cpio::newc::ModeFileType;

use crate::kernel::{Kernel, Module, Version};
use crate::place::Place;
use crate::qemu;
use crate::tool;

/// The package of the guest's program, and the target that it is linked for without a loader.
const PROGRAM: &str = "vsock-guest-program";
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Two files for QEMU.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) kernel: PathBuf,
    pub(crate) initramfs: PathBuf,
    /// Which kernel it is.
    pub(crate) version: Version,
}

impl Image {
    /// Makes both, or finds them made.
    pub(crate) fn prepare(
        place: &Place,
        version: Version,
        mirror: Option<&str>,
    ) -> anyhow::Result<Self> {
        // Without it nothing would boot what is downloaded here.
        qemu::program()?;
        let kernel = Kernel::fetch(place, version, mirror)?;
        let program = build_program(place)?;
        let directory = place.directory(&format!("image/{}", version.name()))?;
        let initramfs = directory.join("initramfs.cpio");
        // Whole or not at all: another run may read it now.
        let part = tempfile::NamedTempFile::new_in(directory)?;
        let bare = pack(&program, &kernel.modules, None)?;
        // What the guest boots from is in it as well, for a guest that starts its kernel again by itself.
        let again = Again {
            kernel: &fs::read(&kernel.image)?,
            initramfs: &bare,
        };
        fs::write(part.path(), pack(&program, &kernel.modules, Some(again))?)?;
        part.persist(&initramfs)?;
        Ok(Self {
            version,
            kernel: kernel.image,
            initramfs,
        })
    }
}

/// What a guest starts from the next time.
#[derive(Clone, Copy, Debug)]
struct Again<'a> {
    kernel: &'a [u8],
    initramfs: &'a [u8],
}

fn pack(program: &[u8], modules: &[Module], again: Option<Again<'_>>) -> io::Result<Vec<u8>> {
    let mut archive = Vec::new();
    for directory in ["boot", "dev", "proc", "sys", "modules"] {
        let entry = NewcBuilder::new(directory).mode(0o755);
        add(
            &mut archive,
            entry.set_mode_file_type(ModeFileType::Directory),
            &[],
        )?;
    }
    // The kernel gives it to the first program as its standard streams, before anything is mounted.
    let console = NewcBuilder::new("dev/console").rdev_major(5).rdev_minor(1);
    let console = console.mode(0o600).set_mode_file_type(ModeFileType::Char);
    add(&mut archive, console, &[])?;
    let init = NewcBuilder::new("init").mode(0o755);
    add_file(&mut archive, init, program)?;
    if let Some(Again { kernel, initramfs }) = again {
        for (name, contents) in [("boot/kernel", kernel), ("boot/initramfs", initramfs)] {
            add_file(&mut archive, NewcBuilder::new(name).mode(0o644), contents)?;
        }
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

fn add(archive: &mut Vec<u8>, entry: NewcBuilder, contents: &[u8]) -> io::Result<()> {
    let len = contents.len().try_into().map_err(io::Error::other)?;
    let mut writer = entry.write(archive, len);
    writer.write_all(contents)?;
    writer.finish().map(drop)
}

fn build_program(place: &Place) -> anyhow::Result<Vec<u8>> {
    let directory = place.directory("program")?;
    tool::run(
        Command::new("cargo")
            .args(["build", "--quiet", "--locked", "--release"])
            .args(["--package", PROGRAM, "--target", TARGET])
            .arg("--manifest-path")
            .arg(place.root.join("Cargo.toml"))
            .arg("--target-dir")
            .arg(&directory)
            .env("RUSTFLAGS", "-C target-feature=+crt-static")
            .env_remove("CARGO_ENCODED_RUSTFLAGS"),
    )
    .context("the guest's program does not build")?;
    let program = directory.join(TARGET).join("release").join(PROGRAM);
    fs::read(&program).with_context(|| format!("no {}", program.display()))
}
