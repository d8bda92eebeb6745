// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The description of one virtual machine. The keys of `--vm` and of a configuration file have the
//! same names as the options, and the same parser reads all three.

use std::collections::BTreeSet;
use std::os::fd::RawFd;
use std::path::PathBuf;

use clap::{Arg, Args as ClapArgs, Command, FromArgMatches};
use thiserror::Error;
use vsock_vhost_user::{Config, ConfigError};

use super::device::DeviceArgs;
use super::identity::Identity;
use super::limits::Limits;
use super::passing::PassingArgs;
use super::routes::{Expose, Forward};
use super::units::with_optional_bool;

/// The default CID of a guest, the same as in vhost-device-vsock.
const CID: u64 = 3;

/// The options of a virtual machine, as given.
#[derive(Clone, Debug, Default, Eq, PartialEq, ClapArgs)]
#[command(mut_args(with_optional_bool))]
pub(crate) struct VmArgs {
    #[command(flatten)]
    pub(super) identity: Identity,

    #[command(flatten)]
    pub(super) limits: Limits,

    #[command(flatten)]
    pub(super) device: DeviceArgs,

    #[command(flatten)]
    pub(super) passing: PassingArgs,
}

/// A virtual machine with all its settings: its own, those given for all, and defaults.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Vm {
    pub(crate) guest_cid: u64,
    /// The path where the device listens for the VMM, or a name for the inherited descriptor.
    pub(crate) socket: PathBuf,
    pub(crate) fd: Option<RawFd>,
    pub(crate) uds_path: PathBuf,
    pub(crate) groups: Vec<String>,
    pub(crate) forward: Vec<Forward>,
    pub(crate) expose: Vec<Expose>,
    pub(crate) no_connect: bool,
    pub(crate) config: Config,
    pub(crate) device: DeviceArgs,
    pub(crate) passing: PassingArgs,
}

/// An error in keys and their values.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub(crate) enum KeysError {
    #[error("expected KEY=VALUE, found {0:?}")]
    NoValue(String),
    #[error("unknown key {key:?}: expected one of {known}", key = .0, known = keys())]
    UnknownKey(String),
    /// The option parser's message.
    #[error("{0}")]
    Value(String),
}

/// An error in the description of a virtual machine.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub(crate) enum VmError {
    #[error("guest {0}: {1} is missing; give the path to listen on for {2}")]
    Missing(u64, &'static str, &'static str),
    #[error("guest {0}: port {1} is forwarded to two targets; give it only one")]
    SamePort(u64, u32),
    #[error(
        "guest {0}: pass-fd needs the socket that no-connect leaves out; remove one of the two"
    )]
    PassWithoutConnect(u64),
    #[error("guest {0}: the limits contradict each other")]
    Limits(u64, #[source] ConfigError),
}

impl VmArgs {
    /// Parses `KEY=VALUE,KEY=VALUE`.
    pub(super) fn of_keys(text: &str) -> Result<Self, KeysError> {
        let pair = |part: &str| {
            let pair = part.split_once('=');
            let (key, value) = pair.ok_or_else(|| KeysError::NoValue(part.to_owned()))?;
            Ok((key.to_owned(), value.to_owned()))
        };
        let pairs: Vec<_> = text.trim().split(',').map(pair).collect::<Result<_, _>>()?;
        Self::of_pairs(&pairs)
    }

    /// Parses keys with their values. A key can be written with `_` for `-`.
    ///
    /// Each pair becomes an option, `--KEY=VALUE`, for the same parser as the command line. A value
    /// therefore cannot be mistaken for another option.
    pub(super) fn of_pairs(pairs: &[(String, String)]) -> Result<Self, KeysError> {
        let command = command();
        let option = |(key, value): &(String, String)| {
            let name = key.replace('_', "-");
            let mut options = command.get_arguments();
            if options.any(|option| has_name(option, &name)) {
                Ok(format!("--{name}={value}"))
            } else {
                Err(KeysError::UnknownKey(key.clone()))
            }
        };
        let options = pairs.iter().map(option).collect::<Result<Vec<_>, _>>()?;
        let matches = command.try_get_matches_from(options);
        let parsed = matches.and_then(|matches| Self::from_arg_matches(&matches));
        parsed.map_err(|error| KeysError::Value(reason(&error)))
    }

    /// Returns the virtual machine with these settings, with those of `all` where these are
    /// missing, and otherwise with the defaults.
    pub(super) fn with(self, all: &Self) -> Result<Vm, VmError> {
        let Identity {
            guest_cid,
            socket,
            fd,
            uds_path,
            groups,
            forward,
            expose,
            no_connect,
            ..
        } = self.identity;
        let guest_cid = guest_cid.unwrap_or(CID);
        let found = |path: Option<PathBuf>, key, client| {
            path.ok_or(VmError::Missing(guest_cid, key, client))
        };
        if let Some(port) = port_with_two_targets(&forward) {
            return Err(VmError::SamePort(guest_cid, port));
        }
        let inherited = fd.map(|number| PathBuf::from(format!("descriptor {number}")));
        let socket = socket.or(inherited);
        let config = self.limits.or(&all.limits).config();
        let no_connect = no_connect.unwrap_or(false);
        let passing = self.passing.or(&all.passing);
        if no_connect && passing.is_allowed() {
            return Err(VmError::PassWithoutConnect(guest_cid));
        }
        Ok(Vm {
            guest_cid,
            fd,
            socket: found(socket, "socket", "the VMM")?,
            uds_path: found(uds_path, "uds-path", "host processes")?,
            groups,
            forward,
            expose,
            no_connect,
            config: config.map_err(|error| VmError::Limits(guest_cid, error))?,
            device: self.device.or(&all.device),
            passing,
        })
    }
}

impl Vm {
    /// Returns the path where host processes connect for messages: a [`UnixSeqpacketBackend`]
    /// listens there.
    ///
    /// [`UnixSeqpacketBackend`]: vsock_vhost_user::UnixSeqpacketBackend
    pub(crate) fn seqpacket_path(&self) -> PathBuf {
        let mut path = self.uds_path.clone().into_os_string();
        path.push("_seqpacket");
        path.into()
    }
}

/// Returns the parser that reads keys as options.
fn command() -> Command {
    let command = Command::new("key").no_binary_name(true);
    VmArgs::augment_args(command.disable_help_flag(true))
}

/// Lists the keys that `--help` shows as options.
fn keys() -> String {
    let command = command();
    let shown = command.get_arguments().filter(|arg| !arg.is_hide_set());
    shown
        .filter_map(Arg::get_long)
        .collect::<Vec<_>>()
        .join(", ")
}

fn has_name(option: &Arg, name: &str) -> bool {
    let aliases = option.get_all_aliases().unwrap_or_default();
    option.get_long() == Some(name) || aliases.contains(&name)
}

/// Returns an error's message without the parts that belong to a command line: the prefix, the
/// usage and the pointer to `--help`.
fn reason(error: &clap::Error) -> String {
    let text = error.to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let said = text.split_once("\n\n").map_or(text, |(said, _)| said);
    said.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Returns a port that is forwarded twice, if there is one.
fn port_with_two_targets(forward: &[Forward]) -> Option<u32> {
    let mut ports = BTreeSet::new();
    let twice = forward.iter().find(|forward| !ports.insert(forward.port))?;
    Some(twice.port)
}
