// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The files and ports that the program still needs while it serves guests.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use vsock_vhost_user::{ExposedAt, ForwardTarget};

use crate::program::args::Vm;

/// The files, directories and ports that the program still needs while it serves guests.
#[derive(Debug, Default)]
pub(crate) struct Needs {
    /// The directories of sockets, which are removed at the end.
    pub(super) directories: BTreeSet<PathBuf>,
    /// Files that are read.
    pub(super) read: Vec<PathBuf>,
    /// The directory to which a coverage build writes its counters.
    #[cfg(coverage)]
    pub(super) profile: Option<PathBuf>,
    /// TCP ports, at any address, to which guests are connected.
    pub(super) connect_tcp: BTreeSet<u16>,
}

impl Needs {
    /// Returns the needs of these virtual machines' devices and of the control socket.
    pub(crate) fn of(vms: &[Vm], control: Option<&Path>) -> Self {
        let mut needs = Self::default();
        needs.directories.extend(control.map(directory));
        for vm in vms {
            let exposed = vm.expose.iter().filter_map(|expose| match &expose.at {
                ExposedAt::Unix(path) => Some(path),
                _ => None,
            });
            // An inherited socket is not removed.
            let socket = vm.fd.is_none().then_some(&vm.socket);
            let sockets = socket.into_iter().chain([&vm.uds_path]).chain(exposed);
            needs
                .directories
                .extend(sockets.map(|path| directory(path)));
            for forward in &vm.forward {
                if let ForwardTarget::Tcp(address) = &forward.target {
                    needs.connect_tcp.insert(address.port());
                }
            }
        }
        needs.read_for_backtraces();
        #[cfg(coverage)]
        {
            let file = std::env::var_os("LLVM_PROFILE_FILE").map(PathBuf::from);
            needs.profile = file.map(|file| directory(&file));
        }
        needs
    }

    /// Adds the files that a panic reads for its backtrace, if one was asked for.
    fn read_for_backtraces(&mut self) {
        let is_wanted = |name| std::env::var_os(name).is_some_and(|value| value != "0");
        if is_wanted("RUST_BACKTRACE") || is_wanted("RUST_LIB_BACKTRACE") {
            self.read.push("/proc/self".into());
            self.read.extend(std::env::current_exe().ok());
        }
    }
}

/// Returns the directory of a socket.
fn directory(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => ".".into(),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::program::args::Args;

    #[test]
    fn a_virtual_machine_needs_socket_directories_and_target_ports() {
        let vm = "guest-cid=3,socket=/run/a/s,uds-path=u,forward=1=tcp:127.0.0.1:80,\
                  forward=2=unix:/run/b/db,expose=unix:/run/c/ssh=22,expose=tcp:127.0.0.1:2222=22";
        let args = Args::try_parse_from(["vsock-vhost-user", "--vm", vm]).unwrap();
        let needs = Needs::of(&args.vms().unwrap(), Some(Path::new("/run/d/control")));
        let directories = [".", "/run/a", "/run/c", "/run/d"].map(PathBuf::from);
        assert_eq!(needs.directories, BTreeSet::from(directories));
        assert_eq!(needs.connect_tcp, BTreeSet::from([80]));
    }

    #[test]
    fn an_inherited_socket_needs_no_directory() {
        let args = ["vsock-vhost-user", "--fd=3", "--uds-path=/run/a/u"];
        let args = Args::try_parse_from(args).unwrap();
        let needs = Needs::of(&args.vms().unwrap(), None);
        assert_eq!(needs.directories, BTreeSet::from(["/run/a".into()]));
    }
}
