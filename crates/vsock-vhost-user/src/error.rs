// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io;
use std::path::PathBuf;

use thiserror::Error;
use vsock_muxer::MuxerError;
use vsock_proto::{CidError, GuestCid};

/// Why a device cannot start, or has ended.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum VhostUserError {
    /// The CID is not valid for a guest.
    #[error("cannot create a device for a guest with this CID")]
    Cid(#[source] CidError),
    /// Another device of this process has the CID.
    #[error("another device of this process has the guest CID {0}")]
    CidTaken(GuestCid),
    /// The queue size is not a power of two from 2 to 32,768.
    #[error("invalid queue size {0}: expected a power of two from 2 to 32768")]
    QueueSize(u16),
    /// The vhost-user socket cannot be created.
    #[error("cannot listen for the VMM on {}", path.display())]
    Socket {
        /// The path of the socket.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The backends cannot be combined.
    #[error("cannot add the backends to the device")]
    Backends(#[from] MuxerError),
    /// The operating system lacks a resource that the device needs.
    #[error("cannot set up the device's event loop")]
    Resources(#[source] io::Error),
    /// The function set by
    /// [`on_thread_start`](crate::VhostUserVsockBuilder::on_thread_start) has failed.
    #[error("a thread of the device cannot start")]
    ThreadStart(#[source] io::Error),
    /// A thread of the device has panicked, which is a defect to report. The panic message shows
    /// where.
    #[error("a thread of the device has panicked")]
    Panicked,
    /// The device was stopped, but something has blocked it for two seconds; the text names the
    /// cause. The socket files of the VMM and of this crate's backends are removed. The threads and
    /// the CID remain in use until the blocking call returns.
    #[error(
        "the device has not ended within two seconds: {0}; its threads and its CID remain in use"
    )]
    NotEnded(&'static str),
}
