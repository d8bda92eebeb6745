// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The driver's modules, and the order in which to load them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::ensure;

use super::name_of;
use crate::tool;

/// What the guest needs: the bus of the device, and the transport. Each module lists its own
/// dependencies. `modules.dep` is not in the packages; an installation would create it.
const ROOTS: [&str; 2] = ["virtio_pci", TRANSPORT];
const TRANSPORT: &str = "vmw_vsock_virtio_transport";
/// What Linux's own tests also need: a network between two guests, and a second transport, because
/// some tests change between transports.
const ROOTS_OF_TESTS: [&str; 2] = ["virtio_net", "vsock_loopback"];
/// The entry by which a module lists the modules to load before it.
const DEPENDS: &[u8] = b"\0depends=";

/// What a guest is used for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Purpose {
    /// Our tests.
    Suite,
    /// Linux's own vsock tests.
    KernelTests,
}

/// An unpacked module.
#[derive(Debug)]
pub(crate) struct Module {
    pub(crate) name: String,
    pub(crate) contents: Vec<u8>,
}

/// Selects the driver's modules, each after its dependencies. A module without a file is built into
/// the kernel.
pub(super) fn of_driver(files: &[PathBuf], purpose: Purpose) -> anyhow::Result<Vec<Module>> {
    let mut loaded = Vec::new();
    let more = match purpose {
        Purpose::Suite => &[][..],
        Purpose::KernelTests => &ROOTS_OF_TESTS,
    };
    for root in ROOTS.iter().chain(more) {
        load(root, &mut loaded, &|name| {
            let file = files.iter().find(|file| is_module(file, name));
            file.map(|file| contents(file)).transpose()
        })?;
    }
    ensure!(
        loaded.iter().any(|module| module.name == TRANSPORT),
        "no module {TRANSPORT} among the {} files of the kernel's packages",
        files.len()
    );
    Ok(loaded)
}

/// Adds a module after its dependencies.
fn load(
    name: &str,
    loaded: &mut Vec<Module>,
    find: &impl Fn(&str) -> anyhow::Result<Option<Vec<u8>>>,
) -> anyhow::Result<()> {
    if loaded.iter().any(|module| module.name == name) {
        return Ok(());
    }
    let Some(contents) = find(name)? else {
        return Ok(());
    };
    for needed in dependencies(&contents) {
        load(&needed, loaded, find)?;
    }
    loaded.push(Module {
        name: name.to_owned(),
        contents,
    });
    Ok(())
}

fn dependencies(module: &[u8]) -> Vec<String> {
    // If the section begins with this entry, the zero before it is the previous section's last
    // byte.
    let Some(at) = module
        .windows(DEPENDS.len())
        .position(|bytes| bytes == DEPENDS)
    else {
        return Vec::new();
    };
    let rest = &module[at + DEPENDS.len()..];
    let end = rest.iter().position(|byte| *byte == 0);
    String::from_utf8_lossy(&rest[..end.unwrap_or(rest.len())])
        .split(',')
        .filter(|name| !name.is_empty())
        .map(|name| name.replace('-', "_"))
        .collect()
}

/// Returns the module's bytes, decompressed by the system's tools if necessary.
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
    let name = name_of(file);
    let stem = name.split_once(".ko").map(|(stem, _)| stem);
    stem.is_some_and(|stem| stem.replace('-', "_") == module)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{dependencies, is_module, load};

    #[test]
    fn a_module_is_found_compressed_or_plain_with_a_dash_or_an_underscore() {
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

    #[test]
    fn a_module_lists_its_dependencies() {
        assert_eq!(
            dependencies(b"\x7fELF\0depends=a-b,c\0name=d\0"),
            ["a_b", "c"]
        );
        assert_eq!(dependencies(b"\0depends=\0name=d\0"), [""; 0]);
        assert_eq!(dependencies(b"name=d\0"), [""; 0]);
    }

    #[test]
    fn each_module_comes_once_and_after_its_dependencies() {
        let mut loaded = Vec::new();
        let find = |name: &str| {
            Ok(match name {
                "top" => Some(b"\0depends=left,right\0".to_vec()),
                "left" | "right" => Some(b"\0depends=base,built_in\0".to_vec()),
                "base" => Some(b"\0depends=\0".to_vec()),
                _ => None,
            })
        };
        load("top", &mut loaded, &find).unwrap();
        let names: Vec<_> = loaded.iter().map(|module| &*module.name).collect();
        assert_eq!(names, ["base", "left", "right", "top"]);
    }
}
