// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The command line: its grammar and its checks, nothing else. A file for each group of options.

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

/// A vsock device for virtual machines, outside of the VMM.
///
/// The VMM connects to SOCKET and shares the guest's memory. A host process reaches port P of the
/// guest by connecting to UDS_PATH and writing "CONNECT P\n"; it reads "OK <port>\n" once the guest
/// has accepted. A host process that serves port P for the guest listens on UDS_PATH
/// followed by "_P".
///
/// Messages go over SOCK_SEQPACKET sockets: to reach the guest, UDS_PATH followed by "_seqpacket",
/// where the command is the first message; to serve a port, the same name as for streams.
///
/// When the VMM goes away, the next one is served. SIGTERM, SIGINT and SIGHUP end the program and
/// remove its sockets.
#[expect(clippy::doc_markdown, reason = "the text of --help")]
#[derive(Debug, Parser)]
#[command(
    name = "vsock-vhost-user",
    version,
    max_term_width = 100,
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true,
    after_help = "\
QEMU, with the guest's memory shared:
  -object memory-backend-memfd,id=mem,size=512M,share=on -machine q35,memory-backend=mem \\
  -chardev socket,id=vsock,path=SOCKET -device vhost-user-vsock-pci,chardev=vsock

Exit codes: 0 ended by a signal, 1 failed, 2 wrong arguments."
)]
pub(crate) struct Args {
    /// One virtual machine of several, by its options without the dashes: guest-cid=N,socket=PATH,
    /// uds-path=PATH, and every other option under the headings "for all guests or as a key of one"
    /// and "the guest, or keys of one". May be repeated
    #[arg(
        long = "vm",
        value_name = "KEY=VALUE,...",
        conflicts_with = "guest",
        value_parser = VmArgs::of_keys
    )]
    many: Vec<VmArgs>,

    /// Virtual machines from a YAML file: `vms:` with a list, each with the keys of --vm
    #[arg(long, value_name = "FILE", conflicts_with_all = ["guest", "many"])]
    config: Option<PathBuf>,

    /// Read all options and files, say what is wrong with them, and start nothing
    #[arg(long)]
    pub(crate) check: bool,

    /// Print what QEMU's conventions for back-ends ask for, as JSON, and do nothing else
    #[arg(long)]
    pub(crate) print_capabilities: bool,

    // Without a heading, so before those with one: what follows a heading stands under it.
    #[command(flatten)]
    pub(crate) log: LogArgs,

    #[command(flatten)]
    pub(crate) operation: OperationArgs,

    #[command(flatten)]
    pub(crate) capture: CaptureArgs,

    #[command(flatten)]
    pub(crate) control: ControlArgs,

    // The last one, because what follows would stand under its heading in the help.
    #[command(flatten)]
    vm: VmArgs,

    /// Without one, the program serves its virtual machines.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// What is wrong with the arguments as a whole.
#[derive(Debug, Error)]
pub(crate) enum ArgsError {
    #[error("no virtual machine: give --socket and --uds-path, or --vm, or --config")]
    NoVm,
    #[error("--config {}", .0.display())]
    File(PathBuf, #[source] FileError),
    #[error(transparent)]
    Vm(#[from] VmError),
    #[error("two virtual machines have the guest CID {0}; each needs its own")]
    SameCid(u64),
    #[error("{0}, and {1}: one name for two sockets; give one of them another name or directory")]
    SameName(SocketUse, SocketUse),
    #[error("{0}: its path has {1} bytes, and that of a socket at most {max}; give a shorter one", max = names::LONGEST)]
    LongName(SocketUse, usize),
}

impl Args {
    /// The virtual machines, of which no two share anything.
    pub(crate) fn vms(&self) -> Result<Vec<Vm>, ArgsError> {
        let described = match &self.config {
            Some(path) => file::read(path).map_err(|error| ArgsError::File(path.clone(), error))?,
            None if self.vm.identity == Identity::default() => self.many.clone(),
            None => vec![self.vm.clone()],
        };
        if described.is_empty() {
            return Err(ArgsError::NoVm);
        }
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
