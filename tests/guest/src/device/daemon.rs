// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A device that is a separate program: ours or `vhost-device-vsock`.

use std::collections::HashSet;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::{fs, io};

use anyhow::{Context, bail};

use super::hybrid::Hybrid;
use super::{Device, Ends, Host, Kind, LIMIT};
use crate::child::{self, Child, wait_until};
use crate::place::Place;
use crate::tool;
use crate::usage::Usage;

/// The package that we compare with, and the version that all our ratios refer to.
const PEER: (&str, &str) = ("vhost-device-vsock", "=0.3.0");
/// Our own package.
const OURS: &str = "vsock-vhost-user";

/// Builds or installs the program for a kind of device, if it needs one.
pub fn program(kind: Kind, place: &Place) -> anyhow::Result<Option<PathBuf>> {
    match kind {
        Kind::Ours => build(place).map(Some),
        Kind::Peer => install(place).map(Some),
        Kind::InProcess => Ok(None),
    }
}

fn build(place: &Place) -> anyhow::Result<PathBuf> {
    if let Some(directory) = &place.programs {
        return Ok(directory.join(OURS));
    }
    tool::show(
        Command::new("cargo")
            .args(["build", "--locked", "--release"])
            .args(["--package", OURS, "--bin", OURS])
            .arg("--manifest-path")
            .arg(place.root.join("Cargo.toml")),
    )
    .context("cannot build our device")?;
    Ok(place.target.join("release").join(OURS))
}

fn install(place: &Place) -> anyhow::Result<PathBuf> {
    let root = place.directory("peer")?;
    let program = root.join("bin").join(PEER.0);
    if !program.exists() {
        tool::show(
            Command::new("cargo")
                .args(["install", "--locked", "--root"])
                .arg(&root)
                .arg("--target-dir")
                .arg(place.directory("peer-build")?)
                .args([PEER.0, "--version", PEER.1]),
        )
        .context("cannot install vhost-device-vsock")?;
    }
    Ok(program)
}

/// The running program.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    socket: PathBuf,
    uds: PathBuf,
    sibling: Option<PathBuf>,
}

/// The group of two guests that may talk to each other.
const GROUP: &str = "siblings";

impl Daemon {
    /// Starts a device with its sockets in a directory, and waits until it listens on them.
    pub fn start(
        program: &Path,
        more: &[String],
        cid: u32,
        directory: &Path,
        log: &Path,
    ) -> anyhow::Result<Self> {
        let (socket, uds) = (directory.join("vhu.sock"), directory.join("uds"));
        let mut command = Command::new(program);
        command
            .args(["--guest-cid", &cid.to_string()])
            .arg("--socket")
            .arg(&socket)
            .arg("--uds-path")
            .arg(&uds)
            .args(more)
            .env("RUST_LOG", "warn");
        let child = Child::spawn(&mut command, log)?;
        let device = Self {
            child,
            socket,
            uds,
            sibling: None,
        };
        device.wait_for_sockets()?;
        Ok(device)
    }

    /// Starts one device process for two siblings. The host side is the first guest's.
    pub fn start_siblings(
        program: &Path,
        cids: [u32; 2],
        directory: &Path,
        log: &Path,
    ) -> anyhow::Result<Self> {
        let guest = |cid, name: &str| {
            let socket = directory.join(format!("{name}vhu.sock"));
            let uds = directory.join(format!("{name}uds"));
            let words = format!(
                "guest-cid={cid},socket={},uds-path={},groups={GROUP}",
                socket.display(),
                uds.display()
            );
            (socket, uds, words)
        };
        let [first, second] = cids;
        let (socket, uds, words) = guest(first, "");
        let (sibling, _, sibling_words) = guest(second, "sibling-");
        let mut command = Command::new(program);
        command
            .args(["--vm", &words, "--vm", &sibling_words])
            .env("RUST_LOG", "warn");
        let device = Self {
            child: Child::spawn(&mut command, log)?,
            socket,
            uds,
            sibling: Some(sibling),
        };
        device.wait_for_sockets()?;
        Ok(device)
    }

    fn wait_for_sockets(&self) -> anyhow::Result<()> {
        let ready = wait_until(LIMIT, || {
            if let Some(status) = self.child.ended() {
                bail!(
                    "the device {} during its start: {}",
                    child::describe(status),
                    self.child.log_tail()
                );
            }
            Ok(self.is_ready().then_some(()))
        })?;
        ready.context("the device does not create its sockets")
    }

    /// Returns whether the device listens on both sockets of each guest. Existing files may be from
    /// an earlier process, and a test connection to the front-end's socket would count as a
    /// front-end.
    fn is_ready(&self) -> bool {
        let listening = listening(self.child.id()).unwrap_or(0);
        let sockets = [Some(&self.socket), self.sibling.as_ref()];
        let mut sockets = sockets.into_iter().flatten();
        listening >= 2 * sockets.clone().count()
            && sockets.all(|socket| socket.exists())
            && UnixStream::connect(&self.uds).is_ok()
    }
}

/// Returns how many Unix sockets a process listens on.
fn listening(process: u32) -> io::Result<usize> {
    /// The flag of a listening socket in the kernel's table.
    const LISTENS: &str = "00010000";
    let table = fs::read_to_string(format!("/proc/{process}/net/unix"))?;
    let inodes: HashSet<&str> = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| fields.get(3) == Some(&LISTENS))
        .filter_map(|fields| fields.get(6).copied())
        .collect();
    let open = fs::read_dir(format!("/proc/{process}/fd"))?
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .filter(|link| {
            link.to_str()
                .and_then(|link| link.strip_prefix("socket:[")?.strip_suffix(']'))
                .is_some_and(|inode| inodes.contains(inode))
        });
    Ok(open.count())
}

impl Device for Daemon {
    fn socket(&self) -> &Path {
        &self.socket
    }

    fn sibling_socket(&self) -> Option<&Path> {
        self.sibling.as_deref()
    }

    fn host(&self) -> Arc<dyn Host> {
        Arc::new(Hybrid::new(&self.uds))
    }

    fn ends(&self) -> Ends {
        Ends::Unix(self.uds.clone())
    }

    fn usage(&self) -> anyhow::Result<Usage> {
        Usage::of_threads(self.child.id(), |_| true)
    }

    fn process(&self) -> Option<&Child> {
        Some(&self.child)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.child.kill();
    }
}
