// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A distribution's packages, by the distribution's own tools. Their configuration is ours: lists,
//! state and cache are in a directory of the build, and nothing on the machine changes.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use super::{Debian, name_of};
use crate::tool::{self, Missing};

/// The newest kernel for virtual machines, in Debian's and Ubuntu's packages.
pub(super) const KERNEL: Wanted = Wanted {
    what: "a kernel for the guest",
    metapackages: &["linux-image-cloud-amd64", "linux-image-virtual"],
    parts: &["linux-image-", "linux-binary-", "linux-modules-"],
};
/// The source of the newest kernel.
pub(super) const SOURCE: Wanted = Wanted {
    what: "the source of a kernel",
    metapackages: &["linux-source"],
    parts: &["linux-source-"],
};
/// The keys that sign Debian's archives.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// What to look for in package lists.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    /// The name in messages.
    what: &'static str,
    /// Metapackages that depend on the newest version.
    metapackages: &'static [&'static str],
    /// The prefixes of the package names to download. The version follows the first one.
    parts: &'static [&'static str],
}

/// A source of packages.
#[derive(Debug)]
pub(super) struct Apt {
    wanted: Wanted,
    own: Option<Own>,
}

/// One Debian suite, with a configuration of its own.
#[derive(Debug)]
struct Own {
    configuration: PathBuf,
    debian: Debian,
}

impl Apt {
    /// The machine's own package lists.
    pub(super) fn system(wanted: Wanted) -> anyhow::Result<Self> {
        tools(wanted)?;
        Ok(Self { wanted, own: None })
    }

    /// A Debian suite, with its lists and cache in a directory.
    pub(super) fn debian(
        wanted: Wanted,
        directory: &Path,
        debian: Debian,
        mirror: Option<&str>,
    ) -> anyhow::Result<Self> {
        tools(wanted)?;
        if !Path::new(KEYRING).is_file() {
            return Err(Missing::new(
                format!("{KEYRING}, with which Debian's packages are verified,"),
                "run: apt-get install debian-archive-keyring",
            )
            .into());
        }
        let configuration = configure(directory, debian.suite, mirror)?;
        let own = Some(Own {
            configuration,
            debian,
        });
        Ok(Self { wanted, own })
    }

    /// Downloads the newest packages.
    pub(super) fn download(&self, directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
        let Some(own) = &self.own else {
            // A fresh machine has no lists, and old lists name packages that the archive no longer
            // has. So a failure here is followed by an update.
            let known = self.packages();
            if let Some(files) = known.and_then(|names| self.fetch(directory, &names).ok()) {
                return Ok(files);
            }
            tool::run(Command::new("apt-get").args(["update", "-qq"])).ok();
            let missing = || {
                Missing::new(
                    self.wanted.what,
                    "run: apt-get update (with Debian's or Ubuntu's sources)",
                )
            };
            let names = self.packages().ok_or_else(missing)?;
            return self.fetch(directory, &names).context(missing());
        };
        let Debian { suite, begins } = own.debian;
        let Wanted { what, parts, .. } = self.wanted;
        let missing = |found: &str| {
            Missing::new(
                format!(
                    "{what}, {begins}*, looked for as {} in Debian's suite {suite}, where {found},",
                    self.wanted.metapackages.join(" or ")
                ),
                "check the network, or name another --mirror or --kernel",
            )
        };
        println!("{what}, {begins}*: searching Debian's suite {suite}");
        tool::show(self.command("apt-get").arg("update"))
            .with_context(|| missing("the lists of packages could not be read"))?;
        let names = self
            .packages()
            .ok_or_else(|| missing("there is no such package"))?;
        let main = parts.first().copied().unwrap_or_default();
        let versions: Vec<_> = names
            .iter()
            .filter_map(|name| name.strip_prefix(main))
            .collect();
        if !versions.iter().any(|version| version.starts_with(begins)) {
            return Err(missing(&format!("there is only {}", versions.join(", "))).into());
        }
        self.fetch(directory, &names)
            .with_context(|| missing("it could not be downloaded"))
    }

    fn fetch(&self, directory: &Path, names: &BTreeSet<String>) -> anyhow::Result<Vec<PathBuf>> {
        let mut command = self.command("apt-get");
        // As root, apt drops its privileges for a download and warns if it cannot. The target
        // directory is ours, so it need not.
        command
            .args(["download", "-o", "APT::Sandbox::User=root"])
            .args(names)
            .current_dir(directory);
        tool::show(&mut command)?;
        let mut files = Vec::new();
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            if name_of(&path).ends_with(".deb") {
                files.push(path);
            }
        }
        Ok(files)
    }

    /// Returns the newest packages that the lists name.
    fn packages(&self) -> Option<BTreeSet<String>> {
        self.wanted.metapackages.iter().find_map(|meta| {
            let mut found = BTreeSet::new();
            self.gather(meta, &mut found);
            (!found.is_empty()).then_some(found)
        })
    }

    /// Adds the packages that this one depends on, directly or indirectly.
    fn gather(&self, package: &str, found: &mut BTreeSet<String>) {
        for part in self.parts_of(package) {
            if found.insert(part.clone()) {
                self.gather(&part, found);
            }
        }
    }

    /// Returns this package's dependencies that are wanted.
    fn parts_of(&self, package: &str) -> Vec<String> {
        let mut command = self.command("apt-cache");
        command.args(["depends", "--important", package]);
        let text = tool::output(&mut command).unwrap_or_default();
        dependencies(&String::from_utf8_lossy(&text), self.wanted.parts)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        if let Some(own) = &self.own {
            command.arg("-c").arg(&own.configuration);
        }
        command
    }
}

/// Writes an apt configuration for one Debian suite, as for a system without packages, and keeps
/// everything it names in a directory.
pub(crate) fn configure(
    directory: &Path,
    suite: &str,
    mirror: Option<&str>,
) -> anyhow::Result<PathBuf> {
    let mirror = mirror.map_or_else(mirror_of_machine, |given| Ok(given.to_owned()))?;
    for part in ["lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(directory.join(part))?;
    }
    let file = |name: &str| directory.join(name);
    fs::write(file("status"), "")?;
    fs::write(
        file("sources.list"),
        format!("deb [signed-by={KEYRING}] {mirror} {suite} main\n"),
    )?;
    let configuration = file("apt.conf");
    fs::write(&configuration, settings(directory))?;
    Ok(configuration)
}

/// Unpacks a package into a directory.
pub(crate) fn unpack(package: &Path, directory: &Path) -> anyhow::Result<()> {
    tool::run(
        Command::new("dpkg-deb")
            .arg("-x")
            .arg(package)
            .arg(directory),
    )
}

fn tools(wanted: Wanted) -> Result<(), Missing> {
    for program in ["apt-get", "apt-cache", "dpkg-deb"] {
        if tool::find(program).is_none() {
            return Err(Missing::new(
                format!("{}: {program}", wanted.what),
                "use a machine with apt (Debian or Ubuntu)",
            ));
        }
    }
    Ok(())
}

/// The apt settings that keep everything in `directory`.
fn settings(directory: &Path) -> String {
    let directory = directory.display();
    // apt reads the machine's settings first. A proxy stays configured, but hooks that run after an
    // update are cleared.
    format!(
        "#clear APT::Update;\n\
         APT::Update::Error-Mode \"any\";\n\
         Dir::State \"{directory}\";\n\
         Dir::State::Lists \"{directory}/lists\";\n\
         Dir::State::status \"{directory}/status\";\n\
         Dir::Cache \"{directory}/cache\";\n\
         Dir::Etc::SourceList \"{directory}/sources.list\";\n\
         Dir::Etc::SourceParts \"/dev/null\";\n\
         Dir::Etc::Preferences \"/dev/null\";\n\
         Dir::Etc::PreferencesParts \"/dev/null\";\n\
         APT::Architecture \"amd64\";\n\
         APT::Architectures {{ \"amd64\"; }};\n\
         APT::Sandbox::User \"root\";\n\
         Acquire::Languages \"none\";\n\
         Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n"
    )
}

/// Debian's archive according to this machine's own sources.
fn mirror_of_machine() -> anyhow::Result<String> {
    let mut command = Command::new("apt-get");
    command.args(["indextargets", "--format", "$(REPO_URI)"]);
    let text = String::from_utf8_lossy(&tool::output(&mut command)?).into_owned();
    mirror_among(&text).ok_or_else(|| {
        Missing::new(
            "Debian's archive in this machine's sources of packages",
            "name a mirror: --mirror http://HOST/debian",
        )
        .into()
    })
}

fn mirror_among(addresses: &str) -> Option<String> {
    addresses
        .lines()
        .map(|line| line.trim().trim_end_matches('/'))
        .find(|address| address.ends_with("/debian"))
        .map(str::to_owned)
}

fn dependencies(text: &str, parts: &[&str]) -> Vec<String> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .filter(|name| parts.iter().any(|part| name.starts_with(part)))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{KERNEL, dependencies, mirror_among};

    #[test]
    fn the_kernel_is_the_dependency_of_the_metapackage() {
        let text = "linux-image-virtual\n  Depends: linux-image-6.8.0-1-generic\n\
                      \x20 Depends: wireless-crda\n\
                    \x20   linux-modules-x\n  Recommends: linux-image-extra\n";
        assert_eq!(
            dependencies(text, KERNEL.parts),
            ["linux-image-6.8.0-1-generic"]
        );
    }

    #[test]
    fn debians_archive_is_distinguished_from_others() {
        let text =
            "http://a.example/debian-security/\nhttp://b.example/node\nhttp://c.example/debian/\n";
        assert_eq!(
            mirror_among(text).as_deref(),
            Some("http://c.example/debian")
        );
        assert_eq!(mirror_among("http://a.example/ubuntu/\n"), None);
    }
}
