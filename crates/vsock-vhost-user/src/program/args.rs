// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The command line: its grammar and its checks. Each group of options has a separate file.

mod capture;
mod command;
mod connect;
mod control;
mod device;
mod file;
mod generate;
mod identity;
mod limits;
mod logging;
mod names;
mod operation;
mod passing;
mod routes;
mod units;
mod vm;

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Parser;
use thiserror::Error;

use self::file::FileError;
use self::identity::Identity;
use self::names::SocketUse;
use self::vm::{VmArgs, VmError};

pub(crate) use self::capture::CaptureArgs;
pub(crate) use self::command::Command;
pub(crate) use self::connect::Connect;
pub(crate) use self::control::{CaptureAction, ControlArgs, CtlAction, CtlArgs};
pub(crate) use self::generate::Generate;
pub(crate) use self::logging::LogArgs;
pub(crate) use self::operation::{OperationArgs, SandboxMode};
pub(crate) use self::vm::Vm;

/// A vsock device for virtual machines, in a process outside the VMM.
///
/// The VMM connects to SOCKET, the path given by --socket, and shares the guest's memory. Host
/// processes use UDS_PATH, the path given by --uds-path. To reach port P of the guest, a host
/// process connects to UDS_PATH and writes "CONNECT P\n"; it reads "OK <port>\n" once the guest
/// has accepted. To serve port P for the guest, it listens on UDS_PATH followed by "_P".
///
/// SOCK_SEQPACKET sockets carry messages. To reach the guest, connect to UDS_PATH followed by
/// "_seqpacket" and send the command as the first message. To serve a port, listen on the same
/// path as for streams.
///
/// When a VMM disconnects, the program waits for the next one. SIGTERM, SIGINT and SIGHUP end the
/// program and remove its sockets.
#[expect(clippy::doc_markdown, reason = "the text of --help")]
#[derive(Debug, Parser)]
#[command(
    name = "vsock-vhost-user",
    version,
    max_term_width = 100,
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true,
    after_help = "\
To use it with QEMU, whose guest memory must be shared:
  -object memory-backend-memfd,id=mem,size=512M,share=on -machine q35,memory-backend=mem \\
  -chardev socket,id=vsock,path=SOCKET -device vhost-user-vsock-pci,chardev=vsock

Exit codes: 0 stopped by a signal, 1 failed, 2 invalid arguments."
)]
pub(crate) struct Args {
    /// Add a virtual machine: guest-cid=N,socket=PATH,uds-path=PATH. May be repeated.
    ///
    /// The keys are the options listed under the headings that mention --vm, without their dashes.
    #[arg(
        long = "vm",
        value_name = "KEY=VALUE,...",
        conflicts_with = "guest",
        value_parser = VmArgs::of_keys
    )]
    many: Vec<VmArgs>,

    /// Read the virtual machines from a YAML file: `vms:`, then a list of entries with the keys of
    /// --vm
    #[arg(long, value_name = "FILE", conflicts_with_all = ["guest", "many"])]
    config: Option<PathBuf>,

    /// Check all options and the --config file, report the first error, and exit without starting a
    /// device
    #[arg(long)]
    pub(crate) check: bool,

    /// Print the program's capabilities as JSON, as QEMU's conventions for back-ends require, and
    /// exit
    #[arg(long)]
    pub(crate) print_capabilities: bool,

    // These options have no heading. They come first, because a heading applies to every option
    // after it.
    #[command(flatten)]
    pub(crate) log: LogArgs,

    #[command(flatten)]
    pub(crate) operation: OperationArgs,

    #[command(flatten)]
    pub(crate) capture: CaptureArgs,

    #[command(flatten)]
    pub(crate) control: ControlArgs,

    // Last, because its headings would apply to any options after it.
    #[command(flatten)]
    vm: VmArgs,

    /// Without a command, the program runs the devices of its virtual machines.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// An error in the combination of arguments.
#[derive(Debug, Error)]
pub(crate) enum ArgsError {
    #[error("no virtual machine: give --socket and --uds-path, --vm, or --config")]
    NoVm,
    #[error("--config {}", .0.display())]
    File(PathBuf, #[source] FileError),
    #[error(transparent)]
    Vm(#[from] VmError),
    #[error("two virtual machines have guest CID {0}; give each a different one")]
    SameCid(u64),
    #[error("{0}, and {1}: two sockets cannot share a name; move one to another path")]
    SameName(SocketUse, SocketUse),
    #[error(
        "{0}: a socket path can have at most {max} bytes and this one has {1}; use a shorter path",
        max = names::LONGEST
    )]
    LongName(SocketUse, usize),
}

impl Args {
    /// Returns the virtual machines. No two of them share a CID or a socket.
    ///
    /// # Errors
    ///
    /// The configuration file is invalid, an option is missing, or two options contradict each
    /// other.
    pub(crate) fn vms(&self) -> Result<Vec<Vm>, ArgsError> {
        // Three sources exclude each other: a file, one or more --vm, or options for one guest.
        let described = match &self.config {
            Some(path) => file::read(path).map_err(|error| ArgsError::File(path.clone(), error))?,
            None if self.vm.identity == Identity::default() => self.many.clone(),
            None => vec![self.vm.clone()],
        };
        if described.is_empty() {
            return Err(ArgsError::NoVm);
        }
        // The options without identity, such as limits, then apply to all of them.
        let vms = described.into_iter().map(|vm| vm.with(&self.vm));
        let vms: Vec<Vm> = vms.collect::<Result<_, _>>()?;
        let mut cids = BTreeSet::new();
        if let Some(twice) = vms.iter().find(|vm| !cids.insert(vm.guest_cid)) {
            return Err(ArgsError::SameCid(twice.guest_cid));
        }
        let control = self.control.control.as_deref();
        if let Some((used, len)) = names::too_long(&vms, control) {
            return Err(ArgsError::LongName(used, len));
        }
        if let Some((other, used)) = names::collision(&vms, control) {
            return Err(ArgsError::SameName(other, used));
        }
        Ok(vms)
    }
}

#[cfg(test)]
mod tests;
