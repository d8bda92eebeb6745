// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A stock kernel from a distribution's packages, which are downloaded and unpacked but not
//! installed.

pub(crate) mod apt;
mod modules;
mod vsock_test;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::ValueEnum;

use self::apt::Apt;
pub(crate) use self::modules::{Module, Purpose};
pub(crate) use self::vsock_test::{Case, VsockTest};
use crate::place::Place;

/// The kernels that we can download.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub(crate) enum Version {
    /// The newest kernel for virtual machines in this machine's own package lists.
    #[default]
    System,
    /// Debian 12's kernel.
    #[value(name = "6.1")]
    V6_1,
    /// Debian 13's kernel.
    #[value(name = "6.12")]
    V6_12,
    /// The kernel of Debian 13's backports.
    #[value(name = "7")]
    V7,
    /// Each of Debian's kernels in turn, if it can be downloaded.
    All,
}

/// A Debian kernel: its suite, and the beginning of its version.
#[derive(Clone, Copy, Debug)]
struct Debian {
    suite: &'static str,
    begins: &'static str,
}

impl Version {
    /// The newest of Debian's kernels.
    pub(crate) const NEWEST: Self = Self::V7;
    /// The kernels that `all` stands for.
    const EACH: [Self; 3] = [Self::V6_1, Self::V6_12, Self::V7];

    /// Expands the versions given on the command line, without duplicates. The default is the
    /// system's.
    pub(crate) fn chosen(words: &[Self]) -> Vec<Self> {
        let mut chosen = Vec::new();
        for version in words {
            let meant = match version {
                Self::All => &Self::EACH[..],
                _ => std::slice::from_ref(version),
            };
            for one in meant {
                if !chosen.contains(one) {
                    chosen.push(*one);
                }
            }
        }
        if chosen.is_empty() {
            chosen.push(Self::default());
        }
        chosen
    }

    /// The name on the command line.
    pub(crate) fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }

    const fn debian(self) -> Option<Debian> {
        let (suite, begins) = match self {
            Self::System | Self::All => return None,
            Self::V6_1 => ("bookworm", "6.1."),
            Self::V6_12 => ("trixie", "6.12."),
            Self::V7 => ("trixie-backports", "7."),
        };
        Some(Debian { suite, begins })
    }
}

/// An unpacked kernel.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) image: PathBuf,
    /// The modules to load, in this order.
    pub(crate) modules: Vec<Module>,
}

impl Kernel {
    /// Downloads and unpacks the kernel into the build directory once. `mirror` is Debian's
    /// archive, if not the one that this machine's own sources name.
    pub(crate) fn fetch(
        place: &Place,
        version: Version,
        mirror: Option<&str>,
        purpose: Purpose,
    ) -> anyhow::Result<Self> {
        let name = version.name();
        let directory = place.directory(&format!("kernel/{name}"))?;
        let ready = directory.join("unpacked");
        if !ready.exists() {
            // A directory without the marker is from an interrupted run, maybe of an older version.
            fs::remove_dir_all(&directory)?;
            fs::create_dir_all(&directory)?;
            let apt = match version.debian() {
                Some(debian) => Apt::debian(apt::KERNEL, &directory.join("apt"), debian, mirror)?,
                None => Apt::system(apt::KERNEL)?,
            };
            for file in apt.download(&directory)? {
                let what = format!("kernel {name}: unpacking {}", name_of(&file));
                vsock_report::step(&what, || apt::unpack(&file, &directory))?;
                fs::remove_file(&file)?;
            }
            fs::write(&ready, "")?;
        }
        Self::find(&directory, purpose)
    }

    /// Finds the kernel in a directory of unpacked packages.
    fn find(directory: &Path, purpose: Purpose) -> anyhow::Result<Self> {
        let files = files(directory)?;
        let image = files
            .iter()
            .find(|file| name_of(file).starts_with("vmlinuz"))
            .with_context(|| format!("no vmlinuz in the packages below {}", directory.display()))?;
        Ok(Self {
            image: image.clone(),
            modules: modules::of_driver(&files, purpose)?,
        })
    }
}

fn name_of(file: &Path) -> String {
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
    use super::Version;

    #[test]
    fn all_means_each_debian_kernel_once() {
        use Version::{All, System, V6_1, V6_12, V7};
        assert_eq!(Version::chosen(&[]), [System]);
        assert_eq!(Version::chosen(&[All]), [V6_1, V6_12, V7]);
        assert_eq!(Version::chosen(&[V7, All, V7]), [V7, V6_1, V6_12]);
    }
}
