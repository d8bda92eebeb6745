// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io;
use std::path::PathBuf;

use thiserror::Error;
use vsock_muxer::MuxerError;
use vsock_proto::{CidError, GuestCid};

/// Why a device cannot be made, or has ended.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum VhostUserError {
    /// The CID is none that a guest may have.
    #[error("no guest can have this CID, choose one from 3 to 4294967294")]
    Cid(#[source] CidError),
    /// Another device of this process has the CID.
    #[error("another device of this process has the guest CID {0}")]
    CidTaken(GuestCid),
    /// The queue size is not a power of two from 2 to 32,768.
    #[error("a queue size of {0} is not a power of two from 2 to 32768")]
    QueueSize(u16),
    /// The vhost-user socket cannot be made.
    #[error("cannot listen for the VMM on {}", path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The backends do not go together.
    #[error("the backends do not fit the device")]
    Backends(#[from] MuxerError),
    /// The operating system lacks what the device needs.
    #[error("cannot set up the device's event loop")]
    Resources(#[source] io::Error),
    /// What a thread of the device was to do first has failed: see
    /// [`on_thread_start`](crate::VhostUserVsockBuilder::on_thread_start).
    #[error("a thread of the device cannot start")]
    ThreadStart(#[source] io::Error),
    /// A thread of the device has panicked. What it printed says where; it is a defect to report.
    #[error("a thread of the device has panicked")]
    Panicked,
    /// It was told to end, and something has blocked it for two seconds: what, the text says. Its
    /// sockets are removed, as far as they are the VMM's or those of this crate's backends; its
    /// threads and its CID are in use until what holds them up is over.
    #[error(
        "the device has not ended within two seconds: {0}; its threads and its CID remain in use"
    )]
    NotEnded(&'static str),
}
