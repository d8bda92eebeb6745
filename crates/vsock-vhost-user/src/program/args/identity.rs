// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The options that belong to one guest: its CID, its sockets and its routes.

use std::convert::Infallible;
use std::os::fd::RawFd;
use std::path::PathBuf;

use clap::Args as ClapArgs;
use clap::builder::NonEmptyStringValueParser;
use thiserror::Error;
use vsock_vhost_user::GuestCid;

use super::routes::{Expose, Forward};
use super::units::{BOOL, number};

/// Options that each guest needs for itself.
#[expect(clippy::doc_markdown, reason = "the text of --help")]
#[derive(Clone, Debug, Default, Eq, PartialEq, ClapArgs)]
#[command(next_help_heading = "The guest (or keys of --vm)")]
#[group(id = "guest", multiple = true)]
pub(crate) struct Identity {
    /// The guest's CID, from 3 to 4294967294 [default: 3]
    #[arg(long, value_name = "N", value_parser = guest_cid)]
    pub(super) guest_cid: Option<u64>,

    /// The path to listen on for the VMM
    #[arg(long, visible_alias = "socket-path", value_name = "PATH")]
    pub(super) socket: Option<PathBuf>,

    /// Use an inherited Unix socket, by its descriptor number, instead of --socket.
    ///
    /// The socket listens for VMMs, or is connected to the only VMM to serve.
    #[arg(
        long,
        value_name = "N",
        conflicts_with = "socket",
        value_parser = number::<i32>(3..=0x7fff_ffff)
    )]
    pub(super) fd: Option<RawFd>,

    /// The path to listen on for host processes that connect to the guest
    #[arg(long, value_name = "PATH")]
    pub(super) uds_path: Option<PathBuf>,

    /// The guest's groups, joined by +. Guests with a group in common can connect to each other
    #[arg(
        long,
        value_name = "NAME+NAME",
        value_delimiter = '+',
        value_parser = NonEmptyStringValueParser::new()
    )]
    pub(super) groups: Vec<String>,

    /// Forward connections that the guest makes to PORT to unix:PATH, tcp:ADDRESS:PORT or
    /// dgram:PATH. May be repeated.
    ///
    /// With dgram, each message is sent as a datagram, as systemd's notifications require.
    #[arg(long, value_name = "PORT=TARGET")]
    pub(super) forward: Vec<Forward>,

    /// Listen on unix:PATH or tcp:ADDRESS:PORT and connect every client to PORT of the guest. May
    /// be repeated.
    ///
    /// There is no handshake: clients send no CONNECT and read no OK.
    #[arg(long, value_name = "ADDRESS=PORT")]
    pub(super) expose: Vec<Expose>,

    /// Do not listen on UDS_PATH.
    ///
    /// Host processes then reach the guest only through --expose. The guest still reaches the host
    /// processes that listen on UDS_PATH followed by "_P".
    #[arg(long, value_name = BOOL)]
    pub(super) no_connect: Option<bool>,

    // Options of vhost-device-vsock. They are refused with an error that names the alternative.
    #[arg(long, hide = true, value_name = "CID", value_parser = forward_cid)]
    forward_cid: Option<Infallible>,
    #[arg(long, hide = true, value_name = "PORT+PORT", value_parser = forward_listen)]
    forward_listen: Option<Infallible>,
}

/// An error in an option of the guest.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
enum IdentityError {
    #[error("expected a number from 3 to 4294967294")]
    Cid,
    #[error(
        "not supported: this program does not use the host's AF_VSOCK sockets. Have the service \
         listen on PATH_P, where PATH is the uds-path and P the port, or use \
         forward=PORT=unix:PATH or forward=PORT=tcp:ADDRESS:PORT. For a service that only has \
         AF_VSOCK, run socat UNIX-LISTEN:PATH,fork VSOCK-CONNECT:1:PORT"
    )]
    ForwardCid,
    #[error(
        "not supported: this program does not use the host's AF_VSOCK sockets. Use \
         expose=unix:PATH=PORT or expose=tcp:ADDRESS:PORT=PORT, or connect to the uds-path. For \
         clients that only have AF_VSOCK, run socat VSOCK-LISTEN:PORT,fork UNIX-CONNECT:PATH"
    )]
    ForwardListen,
}

fn guest_cid(text: &str) -> Result<u64, IdentityError> {
    let cid = text.parse().ok();
    cid.filter(|cid| GuestCid::try_from(*cid).is_ok())
        .ok_or(IdentityError::Cid)
}

fn forward_cid(_cid: &str) -> Result<Infallible, IdentityError> {
    Err(IdentityError::ForwardCid)
}

fn forward_listen(_ports: &str) -> Result<Infallible, IdentityError> {
    Err(IdentityError::ForwardListen)
}
