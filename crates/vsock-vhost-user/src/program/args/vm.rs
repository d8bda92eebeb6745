// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One virtual machine: the options of `--guest-cid` and those with it, or the keys of `--vm`.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args as ClapArgs;
use thiserror::Error;

use super::routes::{Expose, Forward, RouteError};

/// One virtual machine.
#[derive(Clone, Debug, Eq, PartialEq, ClapArgs)]
#[group(requires_all = ["guest_cid", "socket", "uds_path"], multiple = true)]
pub(crate) struct Vm {
    /// The guest's CID, from 3
    #[arg(long, value_name = "N", required = false)]
    pub(crate) guest_cid: u64,

    /// Where to listen for the VMM
    #[arg(long, value_name = "PATH", required = false)]
    pub(crate) socket: PathBuf,

    /// Where to listen for host processes that want to reach the guest
    #[arg(long, value_name = "PATH", required = false)]
    pub(crate) uds_path: PathBuf,

    /// Send the guest's connections to PORT to unix:PATH, tcp:ADDRESS:PORT, or dgram:PATH. With
    /// dgram, each message is a datagram, as for systemd's notifications. May be repeated
    #[arg(long, value_name = "PORT=TARGET", required = false)]
    pub(crate) forward: Vec<Forward>,

    /// Connect every client of unix:PATH or tcp:ADDRESS:PORT to PORT of the guest, without CONNECT
    /// and OK. May be repeated
    #[arg(long, value_name = "ADDRESS=PORT", required = false)]
    pub(crate) expose: Vec<Expose>,

    /// Do not listen for CONNECT: host processes reach the guest only through --expose. The guest
    /// still reaches host processes
    #[arg(long, required = false)]
    pub(crate) no_connect: bool,

    // Instead of what the program's options say for all; by `--vm` alone.
    #[arg(skip)]
    pub(crate) buf_alloc: Option<u32>,
    #[arg(skip)]
    pub(crate) queue_size: Option<u16>,
    #[arg(skip)]
    pub(crate) sealed_memory: Option<bool>,
}
/// What is wrong with the value of `--vm`.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub(crate) enum VmError {
    #[error("expected KEY=VALUE")]
    NoValue,
    #[error("unknown key; there are {}, and tx-buffer-size for buf-alloc", KEYS.join(", "))]
    UnknownKey,
    #[error("{0} is given twice")]
    Twice(&'static str),
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("invalid value for {0}: expected {1}")]
    Invalid(&'static str, &'static str),
    #[error("invalid value for {0}")]
    Route(&'static str, #[source] RouteError),
}
/// The keys of `--vm`.
const KEYS: [&str; 9] = [
    "guest-cid",
    "socket",
    "uds-path",
    "buf-alloc",
    "queue-size",
    "sealed-memory",
    "no-connect",
    "forward",
    "expose",
];

impl FromStr for Vm {
    type Err = VmError;

    fn from_str(text: &str) -> Result<Self, VmError> {
        const NUMBER: &str = "a number that is not too large";
        const BOOL: &str = "true or false";
        let mut values = [None; KEYS.len()];
        let (mut forward, mut expose) = (Vec::new(), Vec::new());
        for part in text.split(',') {
            let (key, value) = part.split_once('=').ok_or(VmError::NoValue)?;
            let key = if key == "tx-buffer-size" {
                "buf-alloc"
            } else {
                key
            };
            // They may come more than once.
            match key {
                "forward" => {
                    forward.push(value.parse().map_err(|e| VmError::Route("forward", e))?);
                    continue;
                }
                "expose" => {
                    expose.push(value.parse().map_err(|e| VmError::Route("expose", e))?);
                    continue;
                }
                _ => {}
            }
            let at = KEYS.iter().position(|known| *known == key);
            let at = at.ok_or(VmError::UnknownKey)?;
            if values[at].replace(value).is_some() {
                return Err(VmError::Twice(KEYS[at]));
            }
        }
        let [
            guest_cid,
            socket,
            uds_path,
            buf_alloc,
            queue_size,
            sealed_memory,
            no_connect,
            _,
            _,
        ] = values;
        Ok(Self {
            guest_cid: parsed("guest-cid", guest_cid, NUMBER)?
                .ok_or(VmError::Missing("guest-cid"))?,
            socket: socket.ok_or(VmError::Missing("socket"))?.into(),
            uds_path: uds_path.ok_or(VmError::Missing("uds-path"))?.into(),
            buf_alloc: parsed("buf-alloc", buf_alloc, NUMBER)?,
            queue_size: parsed("queue-size", queue_size, NUMBER)?,
            sealed_memory: parsed("sealed-memory", sealed_memory, BOOL)?,
            no_connect: parsed("no-connect", no_connect, BOOL)?.unwrap_or(false),
            forward,
            expose,
        })
    }
}
/// The value of a key, if there is one.
fn parsed<T: FromStr>(
    key: &'static str,
    value: Option<&str>,
    expected: &'static str,
) -> Result<Option<T>, VmError> {
    let value = value.map(str::parse).transpose();
    value.map_err(|_| VmError::Invalid(key, expected))
}
impl Vm {
    /// A port of which it is not known where it goes.
    pub(super) fn port_with_two_targets(&self) -> Option<u32> {
        let mut ports = BTreeSet::new();
        let mut routes = self.forward.iter();
        let twice = routes.find(|forward| !ports.insert(forward.port))?;
        Some(twice.port)
    }
}
