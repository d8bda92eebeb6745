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

/// The guest's programs, and how they are linked: the guest has no loader.
const INIT: &str = "guest-init";
const RPC: &str = "guest-rpc";
const STATIC: [&str; 4] = ["-C", "target-feature=+crt-static", "-C", "strip=symbols"];

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
        let programs = build_programs(place)?;
        let directory = place.directory(&format!("image/{}", version.name()))?;
        let initramfs = directory.join("initramfs.cpio");
        // Whole or not at all: another run may read it now.
        let part = tempfile::NamedTempFile::new_in(directory)?;
        let bare = pack(&programs, &kernel.modules, None)?;
        // What the guest boots from is in it as well, for a guest that starts its kernel again by
        // itself.
        let again = Again {
            kernel: &fs::read(&kernel.image)?,
            initramfs: &bare,
        };
        fs::write(part.path(), pack(&programs, &kernel.modules, Some(again))?)?;
        part.persist(&initramfs)?;
        Ok(Self {
            version,
            kernel: kernel.image,
            initramfs,
        })
    }
}

/// What the guest has: its `init`, and the program that speaks RPC, which that starts.
struct Programs {
    init: Vec<u8>,
    rpc: Vec<u8>,
}

/// What a guest starts from the next time.
#[derive(Clone, Copy, Debug)]
struct Again<'a> {
    kernel: &'a [u8],
    initramfs: &'a [u8],
}

fn pack(programs: &Programs, modules: &[Module], again: Option<Again<'_>>) -> io::Result<Vec<u8>> {
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
    for (name, program) in [("init", &programs.init), ("rpc", &programs.rpc)] {
        add_file(&mut archive, NewcBuilder::new(name).mode(0o755), program)?;
    }
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

pub(crate) fn add(archive: &mut Vec<u8>, entry: NewcBuilder, contents: &[u8]) -> io::Result<()> {
    let len = contents.len().try_into().map_err(io::Error::other)?;
    let mut writer = entry.write(archive, len);
    writer.write_all(contents)?;
    writer.finish().map(drop)
}

fn build_programs(place: &Place) -> anyhow::Result<Programs> {
    Ok(Programs {
        init: build(place, INIT)?,
        rpc: build(place, RPC)?,
    })
}

/// Builds a program of this package. Its flags are those of the last step alone, so that what it
/// depends on is what this program was built of as well.
fn build(place: &Place, program: &str) -> anyhow::Result<Vec<u8>> {
    tool::run(
        Command::new("cargo")
            .args(["rustc", "--quiet", "--locked", "--release"])
            .args(["--package", env!("CARGO_PKG_NAME"), "--bin", program])
            .arg("--manifest-path")
            .arg(place.root.join("Cargo.toml"))
            .arg("--")
            .args(STATIC),
    )
    .with_context(|| format!("the guest's program {program} does not build"))?;
    let path = place.target.join("release").join(program);
    fs::read(&path).with_context(|| format!("no {}", path.display()))
}
