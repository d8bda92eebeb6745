// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A stock kernel: the distribution's own package, downloaded and unpacked, not installed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::place::Place;
use crate::tool::{self, Missing};

/// Packages that stand for the newest kernel for virtual machines: Debian's and Ubuntu's.
const METAPACKAGES: [&str; 2] = ["linux-image-cloud-amd64", "linux-image-virtual"];
/// Packages that a kernel is made of, by the beginnings of their names.
const PARTS: [&str; 2] = ["linux-image-", "linux-modules-"];
/// The modules of the driver, each after those that it needs. One that is not there is part of the kernel.
const MODULES: [&str; 8] = [
    "virtio_ring",
    "virtio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "vsock",
    "vmw_vsock_virtio_transport_common",
    "vmw_vsock_virtio_transport",
];

/// A kernel, unpacked.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) image: PathBuf,
    /// The driver's modules, in the order of loading: names and contents.
    pub(crate) modules: Vec<(String, Vec<u8>)>,
}

impl Kernel {
    /// From the build directory, where it is put once.
    pub(crate) fn fetch(place: &Place) -> anyhow::Result<Self> {
        let directory = place.directory("kernel")?;
        let ready = directory.join("unpacked");
        if !ready.exists() {
            download(&directory)?;
            fs::write(&ready, "")?;
        }
        let files = files(&directory)?;
        let image = files
            .iter()
            .find(|file| name(file).starts_with("vmlinuz"))
            .context("the package has no kernel in it")?;
        let mut modules = Vec::new();
        for module in MODULES {
            if let Some(file) = files.iter().find(|file| is_module(file, module)) {
                modules.push((module.to_owned(), contents(file)?));
            }
        }
        if !modules.iter().any(|(name, _)| name == MODULES[7]) {
            bail!("the kernel's package has no module {}", MODULES[7]);
        }
        Ok(Self {
            image: image.clone(),
            modules,
        })
    }
}

fn download(directory: &Path) -> anyhow::Result<()> {
    let missing = || Missing {
        what: "a kernel for the guest",
        hint: "apt-get update (the kernel is a package of Debian's or Ubuntu's for x86-64)",
    };
    if tool::find("apt-get").is_none() || tool::find("dpkg-deb").is_none() {
        return Err(missing().into());
    }
    // The lists of a fresh machine are empty; those of an old one name packages that are gone.
    let fetched = packages().is_some_and(|names| fetch(directory, &names).is_ok());
    if !fetched {
        tool::run(Command::new("apt-get").args(["update", "-qq"])).ok();
        let names = packages().ok_or_else(missing)?;
        fetch(directory, &names).map_err(|error| error.context(missing()))?;
    }
    for file in files(directory)? {
        if name(&file).ends_with(".deb") {
            tool::run(Command::new("dpkg-deb").arg("-x").arg(&file).arg(directory))?;
            fs::remove_file(&file)?;
        }
    }
    Ok(())
}

fn fetch(directory: &Path, names: &BTreeSet<String>) -> anyhow::Result<()> {
    // As root apt gives up its rights for a download, and warns where it cannot: the file is ours.
    tool::run(
        Command::new("apt-get")
            .args(["download", "-qq", "-o", "APT::Sandbox::User=root"])
            .args(names)
            .current_dir(directory),
    )
}

/// The packages of the newest kernel, if the lists have one.
fn packages() -> Option<BTreeSet<String>> {
    METAPACKAGES.into_iter().find_map(|meta| {
        let mut found = BTreeSet::new();
        let mut open = vec![meta.to_owned()];
        while let Some(package) = open.pop() {
            for part in parts_of(&package) {
                if found.insert(part.clone()) {
                    open.push(part);
                }
            }
        }
        (!found.is_empty()).then_some(found)
    })
}

/// The kernel's packages that this one depends on.
fn parts_of(package: &str) -> Vec<String> {
    let mut command = Command::new("apt-cache");
    command.args(["depends", "--important", package]);
    let text = tool::output(&mut command).unwrap_or_default();
    dependencies(&String::from_utf8_lossy(&text))
}

fn dependencies(text: &str) -> Vec<String> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .filter(|name| PARTS.iter().any(|part| name.starts_with(part)))
        .map(str::to_owned)
        .collect()
}

/// The module's bytes, unpacked by the system's tools where it is packed.
fn contents(file: &Path) -> anyhow::Result<Vec<u8>> {
    let unpacker = match file.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("gz") => "gzip",
        _ => return Ok(fs::read(file)?),
    };
    tool::output(Command::new(unpacker).arg("-dc").arg(file))
}

fn is_module(file: &Path, module: &str) -> bool {
    let name = name(file);
    let stem = name.split_once(".ko").map(|(stem, _)| stem);
    stem.is_some_and(|stem| stem.replace('-', "_") == module)
}

fn name(file: &Path) -> String {
    file.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// Every file below a directory.
fn files(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                open.push(entry.path());
            } else if kind.is_file() {
                found.push(entry.path());
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{dependencies, is_module};

    #[test]
    fn the_kernel_is_what_the_metapackage_depends_on() {
        let text = "linux-image-virtual\n  Depends: linux-image-6.8.0-1-generic\n  Depends: wireless-crda\n\
                    \x20   linux-modules-x\n  Recommends: linux-image-extra\n";
        assert_eq!(dependencies(text), ["linux-image-6.8.0-1-generic"]);
    }

    #[test]
    fn a_module_is_known_packed_or_not_with_a_dash_or_without() {
        for file in [
            "a/virtio_ring.ko",
            "a/virtio-ring.ko.xz",
            "virtio_ring.ko.zst",
        ] {
            assert!(is_module(Path::new(file), "virtio_ring"), "{file}");
        }
        assert!(!is_module(Path::new("virtio_ring_x.ko"), "virtio_ring"));
        assert!(!is_module(Path::new("virtio_ring.txt"), "virtio_ring"));
    }
}
