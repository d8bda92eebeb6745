// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The device under test, and the host's side of it.

pub mod daemon;
pub mod hybrid;
pub mod in_process;

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use vsock_inner::VsockInnerConnector;

use crate::child::Child;
use crate::usage::{self, Usage};

/// How long any wait for the other side may take, and more than any should.
pub const LIMIT: Duration = Duration::from_secs(20);

/// The devices that we know to start.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Kind {
    /// Our program, over Unix sockets.
    Ours,
    /// Our library, in this process.
    InProcess,
    /// `vhost-device-vsock` 0.3.0, over Unix sockets.
    Peer,
}

impl Kind {
    /// Those that the bench compares, the peer last.
    pub const MEASURED: [Self; 3] = [Self::Ours, Self::InProcess, Self::Peer];

    /// As tables have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "vsock-vhost-user",
            Self::InProcess => "vsock-vhost-user, in process",
            Self::Peer => "vhost-device-vsock",
        }
    }
}

/// A device that is running.
pub trait Device: Send + Sync {
    /// Where QEMU finds it.
    fn socket(&self) -> &Path;
    /// Where the QEMU of a second guest finds it, one that the first may talk to.
    fn sibling_socket(&self) -> Option<&Path> {
        None
    }
    /// What host components use.
    fn host(&self) -> Arc<dyn Host>;
    /// What async host components use.
    fn ends(&self) -> Ends;
    /// The connections that it has at the moment, where that can be asked.
    fn connections(&self) -> Option<u64> {
        None
    }
    /// What it has used so far.
    fn usage(&self) -> anyhow::Result<Usage>;
    /// What host components have used so far: this process, without the device if that is in it.
    fn host_usage(&self) -> anyhow::Result<Usage> {
        Usage::of_this_process()
    }
    /// Its memory, without the guest's.
    fn anonymous_bytes(&self) -> anyhow::Result<u64> {
        usage::anonymous_bytes(self.process_id())
    }
    /// Descriptors that it has open.
    fn descriptors(&self) -> anyhow::Result<usize> {
        usage::descriptors(self.process_id())
    }
    /// The process, if it has one of its own.
    fn process(&self) -> Option<&Child> {
        None
    }
    /// The number of the process that it is in.
    fn process_id(&self) -> u32 {
        self.process().map_or_else(std::process::id, Child::id)
    }
}

/// Where a device's host ends are.
#[derive(Clone, Debug)]
pub enum Ends {
    /// In this process.
    InProcess(VsockInnerConnector),
    /// Unix sockets whose paths begin so.
    Unix(PathBuf),
}

/// The host's side.
pub trait Host: Send + Sync {
    /// Connects to a port of the guest, which answers within [`LIMIT`].
    fn connect(&self, port: u32) -> io::Result<Stream>;
    /// Takes the guest's connections to a port of the host.
    fn listen(&self, port: u32) -> io::Result<Box<dyn Listener>>;
    /// The same for messages: each is read or written by one call.
    fn messages(&self) -> Option<Arc<dyn Host>> {
        None
    }
}

/// A port of the host.
pub trait Listener: Send + Sync {
    /// Waits for a connection, but not longer than [`LIMIT`].
    fn accept(&self) -> io::Result<Stream> {
        self.accept_within(LIMIT)
    }
    /// The same, but not longer than so.
    fn accept_within(&self, limit: Duration) -> io::Result<Stream>;
}

/// A connection's end on the host. No operation waits longer than [`LIMIT`] unless told so.
#[expect(
    missing_debug_implementations,
    reason = "streams of two kinds, neither of which is looked at"
)]
pub struct Stream {
    /// The half that receives.
    pub reader: Box<dyn Read + Send>,
    /// The half that sends.
    pub writer: Box<dyn Writer>,
}

/// The half of a stream that sends.
pub trait Writer: Write + Send {
    /// How long a write may wait from now on.
    fn set_limit(&mut self, limit: Duration) -> io::Result<()>;
    /// Ends the direction; what has been written arrives before the end does.
    fn finish(&mut self) -> io::Result<()>;
}
