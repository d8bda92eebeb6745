// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The devices to compare, each with a guest and a host component.

use std::env;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::ValueEnum;
use tempfile::TempDir;
use vsock_guest::device::daemon::{self, Daemon};
use vsock_guest::device::in_process::{InProcess, is_its_thread};
use vsock_guest::device::{Device, Kind};
use vsock_guest::place::Place;
use vsock_guest::usage::Usage;
use vsock_report::Revision;

use crate::guest::Guest;
use crate::host::{self, HostSide};
use crate::shape::Shape;

/// A device that can be named on the command line.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Named {
    /// Our program, over Unix sockets.
    Program,
    /// Our library, with the host component in its process.
    Library,
    /// `vhost-device-vsock` 0.3.0, over Unix sockets.
    VhostDeviceVsock,
}

/// The names of our devices.
pub(crate) const PROGRAM: &str = "program";
pub(crate) const LIBRARY: &str = "library";
/// The names of the devices that ours are compared with.
pub(crate) const VHOST_DEVICE_VSOCK: &str = "vhost-device-vsock";
pub(crate) const BASELINE: &str = "baseline";

/// A device to measure, and how to start it.
pub(crate) struct Contender {
    /// The name in tables.
    pub(crate) name: &'static str,
    cid: u32,
    program: PathBuf,
    /// Arguments of the program in addition to the CID and the sockets.
    words: Vec<String>,
    start: Starter,
}

/// Starts a device with its sockets in a directory, and a host component.
type Starter = fn(&Contender, &Path) -> Result<(UsageOf, HostSide)>;
/// Returns the device's usage so far. Also owns the device.
type UsageOf = Box<dyn Fn() -> Result<Usage>>;

impl Contender {
    /// Builds or installs a device.
    pub(crate) fn new(named: Named, place: &Place, poll_us: Option<u32>) -> Result<Self> {
        let installed = |kind| daemon::program(kind, place)?.context("a device without a program");
        let polling = poll_us.map(|micros| format!("--poll-us={micros}"));
        let words = Vec::from_iter(polling.filter(|_| named != Named::VhostDeviceVsock));
        let (name, cid, program, start): (_, _, _, Starter) = match named {
            Named::Program => (PROGRAM, 3, installed(Kind::Ours)?, start_daemon),
            Named::Library => (LIBRARY, 4, env::current_exe()?, start_embedder),
            Named::VhostDeviceVsock => {
                let program = installed(Kind::Peer)?;
                (VHOST_DEVICE_VSOCK, 5, program, start_daemon)
            }
        };
        Ok(Self {
            name,
            cid,
            program,
            words,
            start,
        })
    }

    /// Builds our program at another revision.
    pub(crate) fn baseline(revision: &Revision) -> Result<Self> {
        Ok(Self {
            name: BASELINE,
            cid: 6,
            program: revision.build("vsock-vhost-user")?,
            words: Vec::new(),
            start: start_daemon,
        })
    }

    /// Returns whether the device is built from this revision.
    pub(crate) fn is_ours(&self) -> bool {
        ![VHOST_DEVICE_VSOCK, BASELINE].contains(&self.name)
    }

    /// Starts the device and a guest on it.
    pub(crate) fn start(&self, shape: Shape) -> Result<Machine> {
        let directory = tempfile::tempdir()?;
        let (usage, host) = (self.start)(self, directory.path())?;
        Machine::boot(directory, self.cid, shape, usage, host)
    }
}

fn start_daemon(contender: &Contender, directory: &Path) -> Result<(UsageOf, HostSide)> {
    let (log, cid) = (directory.join("log"), contender.cid);
    let daemon = Daemon::start(&contender.program, &contender.words, cid, directory, &log)?;
    let host = HostSide::here(daemon.host())?;
    Ok((Box::new(move || daemon.usage()), host))
}

/// Starts this program again as an embedder of the library: see [`embed`].
fn start_embedder(contender: &Contender, directory: &Path) -> Result<(UsageOf, HostSide)> {
    let cid = contender.cid;
    let process = Command::new(&contender.program)
        .args(["--serve", &cid.to_string()])
        .arg("--directory")
        .arg(directory)
        .args(&contender.words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", contender.program.display()))?;
    let mut embedder = Embedder(process);
    let pipes = embedder.0.stdin.take().zip(embedder.0.stdout.take());
    let (input, output) = pipes.context("a process without pipes")?;
    let host = HostSide::new(input, output)?;
    let usage = move || Usage::of_threads(embedder.0.id(), |name| is_its_thread(cid, name));
    Ok((Box::new(usage), host))
}

/// A process that embeds the device and a host component.
struct Embedder(Child);

impl Drop for Embedder {
    fn drop(&mut self) {
        // It may already have ended.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Runs as that process: a device, and a host component that runs jobs until the input ends.
pub(crate) fn embed(cid: u32, directory: &Path, poll_us: Option<u32>) -> Result<()> {
    let budget = poll_us.map(|micros| Duration::from_micros(micros.into()));
    let device = InProcess::start(cid, directory, budget)?;
    host::serve(&*device.host(), io::stdin().lock(), io::stdout())
}

/// A device with its guest and its host component.
pub(crate) struct Machine {
    pub(crate) guest: Guest,
    pub(crate) host: HostSide,
    pub(crate) usage: UsageOf,
    next_port: u32,
    _directory: TempDir,
}

impl Machine {
    /// Starts a guest on the device whose sockets are in this directory.
    pub(crate) fn boot(
        directory: TempDir,
        cid: u32,
        shape: Shape,
        usage: UsageOf,
        host: HostSide,
    ) -> Result<Self> {
        Ok(Self {
            guest: Guest::boot(&directory.path().join("vhu.sock"), cid, shape)?,
            host,
            usage,
            next_port: 1024,
            _directory: directory,
        })
    }

    /// Returns a port that was not used before.
    pub(crate) fn port(&mut self) -> u32 {
        self.next_port += 1;
        self.next_port
    }
}
