// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The metadata of a Debian package.

use std::path::Path;

use anyhow::{Context, bail};
use xshell::cmd;

use super::{NAME, files};
use crate::shell::Env;

/// The properties of the package that are known before its files are complete.
#[derive(Debug)]
pub(super) struct Control {
    version: String,
    architecture: String,
    depends: String,
    /// Name and address of the author of the last commit.
    maintainer: String,
    /// The date of that commit, in the format of mail.
    date: String,
    /// The same in seconds since 1970.
    pub(super) epoch: String,
}

impl Control {
    /// Queries the repository and dpkg, and reads which libraries the program is linked with.
    pub(super) fn read(env: &Env, program: &Path) -> anyhow::Result<Self> {
        let commit = |format: &str| {
            let format = format!("--format={format}");
            cmd!(env.sh, "git log -1 {format}").quiet().read()
        };
        let metadata = env.metadata()?;
        let mut packages = metadata["packages"].as_array().into_iter().flatten();
        let package = packages.find(|package| package["name"] == NAME);
        let version = package.and_then(|package| package["version"].as_str());
        let linked = cmd!(env.sh, "objdump -p {program}").quiet().read()?;
        Ok(Self {
            version: debian_version(version.context("cargo reports no version")?),
            architecture: cmd!(env.sh, "dpkg --print-architecture").quiet().read()?,
            depends: depends(&linked)?,
            maintainer: commit("%aN <%aE>")?,
            date: commit("%cD")?,
            epoch: commit("%ct")?,
        })
    }

    /// Returns the name of the package's file.
    pub(super) fn file_name(&self) -> String {
        format!("{NAME}_{}_{}.deb", self.version, self.architecture)
    }

    /// Writes the description and the digests. All files must exist.
    pub(super) fn write(&self, env: &Env, root: &Path) -> anyhow::Result<()> {
        let files = files(root)?;
        let _root = env.sh.push_dir(root);
        let bytes = files
            .iter()
            .map(|file| Ok(root.join(file).metadata()?.len()));
        let bytes: u64 = bytes.sum::<std::io::Result<u64>>()?;
        let digests = cmd!(env.sh, "md5sum {files...}").quiet().read()?;
        env.sh.write_file("DEBIAN/md5sums", digests + "\n")?;
        env.sh
            .write_file("DEBIAN/control", self.text(bytes.div_ceil(1024)))?;
        Ok(())
    }

    fn text(&self, kib: u64) -> String {
        let Self {
            version,
            architecture,
            depends,
            maintainer,
            ..
        } = self;
        format!(
            "\
Package: {NAME}
Version: {version}
Architecture: {architecture}
Maintainer: {maintainer}
Installed-Size: {kib}
Depends: {depends}
Suggests: qemu-system
Section: admin
Priority: optional
Description: vsock device for virtual machines, outside of the VMM
 Programs in a virtual machine and on its host talk by AF_VSOCK sockets in the
 guest and by Unix or TCP sockets on the host. This program is the device
 between them. QEMU, Cloud Hypervisor and crosvm use it by vhost-user; it needs
 neither privileges nor a module of the host's kernel.
"
        )
    }

    /// Returns the change log of the package itself.
    pub(super) fn changelog(&self) -> String {
        let Self {
            version,
            maintainer,
            date,
            ..
        } = self;
        format!(
            "\
{NAME} ({version}) unstable; urgency=medium

  * Packed from the sources; changelog.gz says what is new in them.

 -- {maintainer}  {date}
"
        )
    }

    /// Returns the licences.
    pub(super) fn copyright(&self, env: &Env) -> anyhow::Result<String> {
        let bsd = env.sh.read_file("LICENSE-BSD-3-CLAUSE")?;
        let (holder, terms) = bsd
            .split_once('\n')
            .context("the BSD licence has no copyright line")?;
        let holder = holder.trim_start_matches("Copyright ");
        let terms = paragraph(terms.trim());
        Ok(format!(
            "\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: {NAME}
Comment: The program contains libraries of others. Their licences are in
 libraries.gz beside this file. It also contains Rust's standard library, which
 is available under MIT or Apache-2.0.

Files: *
Copyright: {holder}
License: Apache-2.0 or BSD-3-clause

License: Apache-2.0
 Debian has the text in /usr/share/common-licenses/Apache-2.0.

License: BSD-3-clause
{terms}
"
        ))
    }
}

/// Formats a text as a field of several lines.
fn paragraph(text: &str) -> String {
    let line = |line: &str| match line.trim_end() {
        "" => " .".to_owned(),
        line => format!(" {line}"),
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// Returns the Debian version of the first package. Pre-releases sort before the release.
fn debian_version(version: &str) -> String {
    format!("{}-1", version.replacen('-', "~", 1))
}

/// Returns the packages that the program needs, given the output of `objdump -p`.
fn depends(linked: &str) -> anyhow::Result<String> {
    let mut packages = Vec::new();
    for library in linked
        .lines()
        .filter_map(|line| line.trim().strip_prefix("NEEDED "))
    {
        match library.trim() {
            "libc.so.6" => packages.push(format!("libc6 (>= {})", glibc(linked)?)),
            "libgcc_s.so.1" => packages.push("libgcc-s1 (>= 4.2)".to_owned()),
            // Parts of libc6.
            "libm.so.6" => {}
            loader if loader.starts_with("ld-linux") => {}
            other => {
                bail!("the program needs {other}: add its Debian package in package/control.rs")
            }
        }
    }
    packages.sort();
    Ok(packages.join(", "))
}

/// Returns the version of the C library whose symbols the program needs.
fn glibc(linked: &str) -> anyhow::Result<&str> {
    let versions = linked
        .split_whitespace()
        .filter_map(|word| word.strip_prefix("GLIBC_"));
    let newest = versions.max_by_key(|version| {
        let numbers = version.split('.').map(|part| part.parse().unwrap_or(0));
        numbers.collect::<Vec<u32>>()
    });
    newest.context("the program needs no versioned symbol of the C library")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_before_a_release_sorts_before_it() {
        assert_eq!(debian_version("0.1.0"), "0.1.0-1");
        assert_eq!(debian_version("0.2.0-rc.1"), "0.2.0~rc.1-1");
    }

    #[test]
    fn the_newest_symbol_says_which_c_library_is_needed() {
        let linked = "
  NEEDED               libgcc_s.so.1
  NEEDED               libc.so.6
  NEEDED               ld-linux-x86-64.so.2
    0x0d696919 0x00 09 GLIBC_2.9
    0x069691b4 0x00 02 GLIBC_2.34
    0x09691974 0x00 07 GLIBC_2.3.4
    0x0b792650 0x00 14 GCC_3.0
";
        let expected = "libc6 (>= 2.34), libgcc-s1 (>= 4.2)";
        assert_eq!(depends(linked).ok().as_deref(), Some(expected));
    }

    #[test]
    fn a_library_without_a_known_package_is_an_error() {
        let error = depends("  NEEDED     libssl.so.3\n").unwrap_err();
        assert!(error.to_string().contains("libssl.so.3"), "{error}");
    }

    #[test]
    fn an_empty_line_in_a_field_is_a_full_stop() {
        assert_eq!(paragraph("a\n\n  b"), " a\n .\n   b");
    }
}
