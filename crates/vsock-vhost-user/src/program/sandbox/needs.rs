// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the program uses once it serves.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use vsock_vhost_user::{ExposedAt, ForwardTarget};

use crate::program::args::Vm;

/// The files, directories and ports that the program needs once it serves.
#[derive(Debug, Default)]
pub(crate) struct Needs {
    /// Where sockets are removed at the end.
    pub(super) directories: BTreeSet<PathBuf>,
    /// Files that are read.
    pub(super) read: Vec<PathBuf>,
    /// Where a build that measures coverage writes what it has counted.
    #[cfg(coverage)]
    pub(super) profile: Option<PathBuf>,
    /// Ports of TCP, of any address, that guests are connected to.
    pub(super) connect_tcp: BTreeSet<u16>,
}

impl Needs {
    /// What the devices of these virtual machines need, and those that watch the program at this
    /// socket.
    pub(crate) fn of(vms: &[Vm], control: Option<&Path>) -> Self {
        let mut needs = Self::default();
        needs.directories.extend(control.map(directory));
        for vm in vms {
            let exposed = vm.expose.iter().filter_map(|expose| match &expose.at {
                ExposedAt::Unix(path) => Some(path),
                _ => None,
            });
            // A socket that was passed by number is nowhere.
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

    /// What a panic reads to name the functions that led to it, if it is asked to.
    fn read_for_backtraces(&mut self) {
        let is_wanted = |name| std::env::var_os(name).is_some_and(|value| value != "0");
        if is_wanted("RUST_BACKTRACE") || is_wanted("RUST_LIB_BACKTRACE") {
            self.read.push("/proc/self".into());
            self.read.extend(std::env::current_exe().ok());
        }
    }
}

/// The directory of a socket.
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
    fn a_machine_needs_the_directories_of_its_sockets_and_the_ports_of_its_targets() {
        let vm = "guest-cid=3,socket=/run/a/s,uds-path=u,forward=1=tcp:127.0.0.1:80,\
                  forward=2=unix:/run/b/db,expose=unix:/run/c/ssh=22,expose=tcp:127.0.0.1:2222=22";
        let args = Args::try_parse_from(["vsock-vhost-user", "--vm", vm]).unwrap();
        let needs = Needs::of(&args.vms().unwrap(), Some(Path::new("/run/d/control")));
        let directories = [".", "/run/a", "/run/c", "/run/d"].map(PathBuf::from);
        assert_eq!(needs.directories, BTreeSet::from(directories));
        assert_eq!(needs.connect_tcp, BTreeSet::from([80]));
    }

    #[test]
    fn a_socket_that_is_passed_by_number_needs_no_directory() {
        let args = ["vsock-vhost-user", "--fd=3", "--uds-path=/run/a/u"];
        let args = Args::try_parse_from(args).unwrap();
        let needs = Needs::of(&args.vms().unwrap(), None);
        assert_eq!(needs.directories, BTreeSet::from(["/run/a".into()]));
    }
}
