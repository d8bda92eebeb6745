// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which guest it is, and where its VMM and the host find it.

use std::convert::Infallible;
use std::os::fd::RawFd;
use std::path::PathBuf;

use clap::Args as ClapArgs;
use clap::builder::NonEmptyStringValueParser;
use thiserror::Error;
use vsock_vhost_user::GuestCid;

use super::routes::{Expose, Forward};
use super::units::{BOOL, number};

/// The options of one guest that cannot be the same for two.
#[derive(Clone, Debug, Default, Eq, PartialEq, ClapArgs)]
#[command(next_help_heading = "The guest, or keys of one")]
#[group(id = "guest", multiple = true)]
pub(crate) struct Identity {
    /// The guest's CID, from 3 to 4294967294 [default: 3]
    #[arg(long, value_name = "N", value_parser = guest_cid)]
    pub(super) guest_cid: Option<u64>,

    /// Where to listen for the VMM
    #[arg(long, visible_alias = "socket-path", value_name = "PATH")]
    pub(super) socket: Option<PathBuf>,

    /// The number of a Unix socket for the VMM that this program inherits, instead of --socket: one
    /// that listens, or one that is connected to the only VMM
    #[arg(
        long,
        value_name = "N",
        conflicts_with = "socket",
        value_parser = number::<i32>(3..=0x7fff_ffff)
    )]
    pub(super) fd: Option<RawFd>,

    /// Where to listen for host processes that want to reach the guest
    #[arg(long, value_name = "PATH")]
    pub(super) uds_path: Option<PathBuf>,

    /// Names, joined by +: guests that have one in common may connect to each other
    #[arg(
        long,
        value_name = "NAME+NAME",
        value_delimiter = '+',
        value_parser = NonEmptyStringValueParser::new()
    )]
    pub(super) groups: Vec<String>,

    /// Send the guest's connections to PORT to unix:PATH, tcp:ADDRESS:PORT, or dgram:PATH. With
    /// dgram, each message is a datagram, as for systemd's notifications. May be repeated
    #[arg(long, value_name = "PORT=TARGET")]
    pub(super) forward: Vec<Forward>,

    /// Connect every client of unix:PATH or tcp:ADDRESS:PORT to PORT of the guest, without CONNECT
    /// and OK. May be repeated
    #[arg(long, value_name = "ADDRESS=PORT")]
    pub(super) expose: Vec<Expose>,

    /// Do not listen for CONNECT: host processes reach the guest only through --expose. The guest
    /// still reaches host processes
    #[arg(long, value_name = BOOL)]
    pub(super) no_connect: Option<bool>,

    // Options of vhost-device-vsock that are refused with a reason.
    #[arg(long, hide = true, value_name = "CID", value_parser = forward_cid)]
    forward_cid: Option<Infallible>,
    #[arg(long, hide = true, value_name = "PORT+PORT", value_parser = forward_listen)]
    forward_listen: Option<Infallible>,
}

/// Why an option of the guest is refused.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
enum IdentityError {
    #[error("expected a number from 3 to 4294967294")]
    Cid,
    #[error(
        "this program opens no AF_VSOCK socket of the host; use uds-path=PATH, where a host process \
         serves port P on PATH_P, or forward=PORT=unix:PATH or =tcp:ADDRESS:PORT. For a service on \
         AF_VSOCK alone, socat UNIX-LISTEN:PATH,fork VSOCK-CONNECT:1:PORT stands between the two"
    )]
    ForwardCid,
    #[error(
        "this program opens no AF_VSOCK socket of the host; use expose=unix:PATH=PORT or \
         expose=tcp:ADDRESS:PORT=PORT, or connect to uds-path. For clients on AF_VSOCK alone, \
         socat VSOCK-LISTEN:PORT,fork UNIX-CONNECT:PATH stands between the two"
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
