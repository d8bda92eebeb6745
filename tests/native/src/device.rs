// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The devices that are compared, each with a guest and a host component.

use std::env;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::ValueEnum;
use tempfile::TempDir;
use vsock_guest::device::daemon::{self, Daemon};
use vsock_guest::device::in_process::is_its_thread;
use vsock_guest::device::{Device, Kind};
use vsock_guest::place::Place;
use vsock_guest::usage::Usage;
use vsock_report::Revision;

use crate::guest::Guest;
use crate::host::{Embedder, HostSide};
use crate::shape::Shape;

/// A device that is compared with others.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Named {
    /// Our program, over Unix sockets.
    Program,
    /// Our library, with the host component in its process.
    Library,
    /// `vhost-device-vsock` 0.3.0, over Unix sockets.
    Peer,
}

impl Named {
    pub(crate) const ALL: [Self; 3] = [Self::Program, Self::Library, Self::Peer];
}

/// The names of the devices that ours are compared with.
pub(crate) const PEER: &str = "peer";
pub(crate) const BASELINE: &str = "baseline";

/// How a device is started.
pub(crate) struct Contender {
    /// As tables have it.
    pub(crate) name: &'static str,
    cid: u32,
    program: PathBuf,
    how: How,
}

enum How {
    /// A program over Unix sockets, and what it is told beside them.
    Daemon(Vec<String>),
    /// This program, which embeds the library, and what it is told.
    Embedder(Vec<String>),
}

/// How long our device looks for work before it sleeps, in microseconds: an option of the program, and
/// of this one that embeds the library (see [`host::serve`](crate::host::serve)).
fn polling(poll_us: Option<u32>) -> Vec<String> {
    poll_us.map_or_else(Vec::new, |poll_us| vec![format!("--poll-us={poll_us}")])
}

impl Contender {
    /// Builds or installs a device.
    pub(crate) fn new(named: Named, place: &Place, poll_us: Option<u32>) -> Result<Self> {
        let installed = |kind| daemon::program(kind, place)?.context("a device without a program");
        Ok(match named {
            Named::Program => Self {
                name: "program",
                cid: 3,
                program: installed(Kind::Ours)?,
                how: How::Daemon(polling(poll_us)),
            },
            Named::Library => Self {
                name: "library",
                cid: 4,
                program: env::current_exe()?,
                how: How::Embedder(polling(poll_us)),
            },
            Named::Peer => Self {
                name: PEER,
                cid: 5,
                program: installed(Kind::Peer)?,
                how: How::Daemon(Vec::new()),
            },
        })
    }

    /// Builds our program of another revision.
    pub(crate) fn baseline(revision: &Revision) -> Result<Self> {
        Ok(Self {
            name: BASELINE,
            cid: 6,
            program: revision.build("vsock-vhost-user")?,
            how: How::Daemon(Vec::new()),
        })
    }

    /// Whether it is of this revision.
    pub(crate) fn is_ours(&self) -> bool {
        ![PEER, BASELINE].contains(&self.name)
    }

    /// Starts it, and a guest on it.
    pub(crate) fn start(&self, shape: Shape) -> Result<Machine> {
        let directory = tempfile::tempdir()?;
        let (path, cid) = (directory.path(), self.cid);
        let (device, host, socket) = match &self.how {
            How::Daemon(words) => {
                let log = path.join("log");
                let daemon = Daemon::start(&self.program, words, cid, path, &log)?;
                let (host, socket) = (daemon.host(), daemon.socket().to_owned());
                (Running::Daemon(daemon), HostSide::Here(host), socket)
            }
            How::Embedder(words) => {
                let embedder = Embedder::start(&self.program, words, cid, path)?;
                let process = embedder.id();
                let device = Running::Embedded { process, cid };
                (device, HostSide::There(embedder), path.join("vhu.sock"))
            }
        };
        Ok(Machine {
            guest: Guest::boot(&socket, cid, shape)?,
            host,
            device,
            next_port: 1024,
            _directory: directory,
        })
    }
}

/// A device that is running.
pub(crate) enum Running {
    Daemon(Daemon),
    /// Some of the threads of a process.
    Embedded {
        process: u32,
        cid: u32,
    },
}

impl Running {
    /// What it has used so far.
    pub(crate) fn usage(&self) -> Result<Usage> {
        match self {
            Self::Daemon(daemon) => daemon.usage(),
            Self::Embedded { process, cid } => {
                Usage::of_threads(*process, |name| is_its_thread(*cid, name))
            }
        }
    }
}

/// A device with its guest and its host component.
pub(crate) struct Machine {
    pub(crate) guest: Guest,
    pub(crate) host: HostSide,
    pub(crate) device: Running,
    next_port: u32,
    _directory: TempDir,
}

impl Machine {
    /// A port that was not used before.
    pub(crate) fn port(&mut self) -> u32 {
        self.next_port += 1;
        self.next_port
    }
}
