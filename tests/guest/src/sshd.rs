// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Debian's sshd in the guest, and Debian's clients that reach it from the host.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use cpio::NewcBuilder;
use cpio::newc::ModeFileType;
use vsock_guest_program::job::Job;

use crate::image::add;
use crate::machine::Machine;
use crate::packages::Packages;
use crate::place::Place;
use crate::tool;

/// The packages that both sides need.
const PACKAGES: [&str; 6] = [
    "openssh-server",
    "openssh-client",
    "socat",
    "systemd",
    "dash",
    "coreutils",
];
/// The programs in the guest.
const PROGRAMS: [&str; 7] = [
    "usr/sbin/sshd",
    "usr/lib/openssh/sshd-session",
    "usr/lib/openssh/sshd-auth",
    "usr/bin/socat",
    "usr/bin/dash",
    "usr/bin/cat",
    "usr/bin/sha256sum",
];
const DIRECTORIES: [&str; 11] = [
    "etc",
    "etc/ssh",
    "root",
    "run",
    "run/sshd",
    "usr",
    "usr/bin",
    "usr/sbin",
    "usr/lib",
    "usr/lib/openssh",
    "usr/lib/x86_64-linux-gnu",
];
const LINKS: [(&str, &str); 6] = [
    ("bin", "usr/bin"),
    ("lib", "usr/lib"),
    ("lib64", "usr/lib64"),
    ("usr/bin/sh", "dash"),
    ("usr/lib64", "lib/x86_64-linux-gnu"),
    ("sbin", "usr/sbin"),
];
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nsshd:x:100:65534::/run/sshd:/bin/false\n";
const CONFIG: &str = "\
HostKey /etc/ssh/key
AuthorizedKeysFile /etc/ssh/authorized
PermitRootLogin yes
StrictModes no
PidFile none
LogLevel ERROR
";
/// The port of the guest's sshd.
pub(crate) const PORT: u32 = 22;

/// The programs, and keys for one run.
pub(crate) struct Ssh {
    packages: Packages,
    /// Contains the client's key and the files that the client writes.
    directory: PathBuf,
}

impl Ssh {
    /// Fetches the programs and creates keys in a directory.
    pub(crate) fn prepare(directory: &Path) -> anyhow::Result<Self> {
        let packages = Packages::fetch(&Place::new()?, &PACKAGES)?;
        for name in ["host", "client"] {
            let mut command = packages.command("usr/bin/ssh-keygen");
            command.args(["-q", "-t", "ed25519", "-N", "", "-f"]);
            tool::run(command.arg(directory.join(name)))?;
        }
        let directory = directory.to_owned();
        Ok(Self {
            packages,
            directory,
        })
    }

    /// Returns the path of a copy of a guest's initramfs with sshd added.
    pub(crate) fn initramfs(&self, bare: &Path) -> anyhow::Result<PathBuf> {
        let mut archive = fs::read(bare)?;
        // Each archive begins at a multiple of four bytes.
        archive.resize(archive.len().next_multiple_of(4), 0);
        for name in DIRECTORIES {
            entry(&mut archive, name, ModeFileType::Directory, 0o755, &[])?;
        }
        for (name, target) in LINKS {
            let target = target.as_bytes();
            entry(&mut archive, name, ModeFileType::Symlink, 0o777, target)?;
        }
        let libraries = self.packages.libraries(&PROGRAMS)?;
        let programs = PROGRAMS.iter().copied();
        for name in programs.chain(libraries.iter().map(String::as_str)) {
            let path = self.packages.path(name);
            let contents = fs::read(&path).with_context(|| format!("no {}", path.display()))?;
            entry(&mut archive, name, ModeFileType::Regular, 0o755, &contents)?;
        }
        let read = |name: &str| fs::read(self.directory.join(name));
        for (name, contents) in [
            ("etc/passwd", PASSWD.into()),
            ("etc/ssh/sshd_config", CONFIG.into()),
            ("etc/ssh/key", read("host")?),
            ("etc/ssh/authorized", read("client.pub")?),
        ] {
            entry(&mut archive, name, ModeFileType::Regular, 0o600, &contents)?;
        }
        let path = self.directory.join("initramfs.cpio");
        fs::write(&path, cpio::newc::trailer(archive)?)?;
        Ok(path)
    }

    /// Starts an sshd in the guest for each connection to its port, until the guest ends.
    pub(crate) fn serve(machine: &Machine) -> anyhow::Result<()> {
        let arguments = [
            format!("VSOCK-LISTEN:{PORT},fork"),
            "EXEC:/usr/sbin/sshd -i -e -f /etc/ssh/sshd_config".to_owned(),
        ];
        let program = "/usr/bin/socat".to_owned();
        let arguments = arguments.into();
        // The job is never answered.
        machine
            .guest()
            .start(Job::Run { program, arguments })
            .map(drop)
    }

    /// Returns the command of a client that reaches the guest through `proxy` and runs `words`
    /// there.
    pub(crate) fn client(&self, proxy: &str, options: &[&str], words: &[&str]) -> Command {
        let mut command = self.packages.command("usr/bin/ssh");
        command
            .args(["-F", "none", "-o", "BatchMode=yes", "-i"])
            .arg(self.directory.join("client"))
            .args(["-o", "StrictHostKeyChecking=accept-new", "-o"])
            .arg(format!(
                "UserKnownHostsFile={}",
                self.directory.join("known").display()
            ))
            .arg("-o")
            .arg(format!("ProxyCommand={proxy}"))
            .args(options)
            .args(words);
        command
    }

    /// Returns the words that run systemd's proxy, which finds out by itself how to reach a guest.
    pub(crate) fn systemd_proxy(&self) -> String {
        self.packages.words("usr/lib/systemd/systemd-ssh-proxy")
    }

    pub(crate) fn socat(&self) -> Command {
        self.packages.command("usr/bin/socat")
    }
}

fn entry(
    archive: &mut Vec<u8>,
    name: &str,
    kind: ModeFileType,
    mode: u32,
    contents: &[u8],
) -> io::Result<()> {
    let builder = NewcBuilder::new(name).mode(mode).set_mode_file_type(kind);
    add(archive, builder, contents)
}
