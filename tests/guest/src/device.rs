// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A device under test and its host side, the same for every kind of device.

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

/// The limit of every wait for the other side. No wait should come near it.
pub const LIMIT: Duration = Duration::from_secs(20);

/// The devices that we can start.
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
    /// The devices that the bench compares, with vhost-device-vsock last.
    pub const MEASURED: [Self; 3] = [Self::Ours, Self::InProcess, Self::Peer];

    /// The name in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "vsock-vhost-user",
            Self::InProcess => "vsock-vhost-user, in process",
            Self::Peer => "vhost-device-vsock",
        }
    }
}

/// A running device.
pub trait Device: Send + Sync {
    /// The vhost-user socket that QEMU connects to.
    fn socket(&self) -> &Path;
    /// The vhost-user socket for the QEMU of a sibling, if there is one.
    fn sibling_socket(&self) -> Option<&Path> {
        None
    }
    /// The host side for components that block.
    fn host(&self) -> Arc<dyn Host>;
    /// The host side for async components.
    fn ends(&self) -> Ends;
    /// How many connections the device has now, if it can be asked.
    fn connections(&self) -> Option<u64> {
        None
    }
    /// The device's usage so far.
    fn usage(&self) -> anyhow::Result<Usage>;
    /// The usage of the host components: this process, less the device if it runs in this process.
    fn host_usage(&self) -> anyhow::Result<Usage> {
        Usage::of_this_process()
    }
    /// The memory of the device's process, without the guest's memory.
    fn anonymous_bytes(&self) -> anyhow::Result<u64> {
        usage::anonymous_bytes(self.process_id())
    }
    /// How many descriptors the device's process has open.
    fn descriptors(&self) -> anyhow::Result<usize> {
        usage::descriptors(self.process_id())
    }
    /// The device's process, if it has its own.
    fn process(&self) -> Option<&Child> {
        None
    }
    /// The identifier of the process that contains the device.
    fn process_id(&self) -> u32 {
        self.process().map_or_else(std::process::id, Child::id)
    }
}

/// Where the host's ends of a device's connections are.
#[derive(Clone, Debug)]
pub enum Ends {
    /// In this process.
    InProcess(VsockInnerConnector),
    /// Unix sockets whose paths begin with this one.
    Unix(PathBuf),
}

/// The host side of a device.
pub trait Host: Send + Sync {
    /// Connects to a port of the guest, within [`LIMIT`].
    fn connect(&self, port: u32) -> io::Result<Stream>;
    /// Listens on a port of the host for the guest's connections.
    fn listen(&self, port: u32) -> io::Result<Box<dyn Listener>>;
    /// The same for seqpacket connections: one call reads or writes one message.
    fn messages(&self) -> Option<Arc<dyn Host>> {
        None
    }
}

/// A listening port of the host.
pub trait Listener: Send + Sync {
    /// Waits for a connection, for [`LIMIT`] at most.
    fn accept(&self) -> io::Result<Stream> {
        self.accept_within(LIMIT)
    }
    /// Waits for a connection, for `limit` at most.
    fn accept_within(&self, limit: Duration) -> io::Result<Stream>;
}

/// A connection's end on the host. No operation waits longer than [`LIMIT`] unless another limit
/// is set.
#[expect(
    missing_debug_implementations,
    reason = "the two kinds of streams are never printed"
)]
pub struct Stream {
    /// The half that receives.
    pub reader: Box<dyn Read + Send>,
    /// The half that sends.
    pub writer: Box<dyn Writer>,
}

/// The sending half of a stream.
pub trait Writer: Write + Send {
    /// Sets how long later writes may wait.
    fn set_limit(&mut self, limit: Duration) -> io::Result<()>;
    /// Ends this direction. The peer receives everything that was written, then the end.
    fn finish(&mut self) -> io::Result<()>;
}
