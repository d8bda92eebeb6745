// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The sockets of virtual machines, of which no two may have one name.

use std::fmt;
use std::path::{Path, PathBuf};

use vsock_vhost_user::SocketNames;

use super::vm::Vm;

/// A socket that a virtual machine uses.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct SocketUse {
    cid: u64,
    place: String,
    what: &'static str,
}

impl fmt::Display for SocketUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cid, place, what } = self;
        write!(f, "guest {cid} has {place} ({what})")
    }
}
/// The bytes of the longest path that a socket can have (`sun_path` of Linux).
pub(super) const LONGEST: usize = 107;

/// The first socket whose path is too long for one, and its length.
pub(super) fn too_long(vms: &[Vm]) -> Option<(SocketUse, usize)> {
    let used = |vm: &Vm, path: &Path, what| {
        let len = path.as_os_str().len();
        (len > LONGEST).then(|| (vm.socket_use(path, what), len))
    };
    vms.iter().find_map(|vm| {
        used(vm, &vm.socket, "socket").or_else(|| used(vm, &vm.uds_path, "uds-path"))
    })
}

/// The first two sockets that would have one name.
pub(super) fn collision(vms: &[Vm]) -> Option<(SocketUse, SocketUse)> {
    let sockets: Vec<_> = vms.iter().flat_map(Vm::sockets).collect();
    sockets.iter().enumerate().find_map(|(at, (names, used))| {
        let mut before = sockets[..at].iter();
        let (_, other) = before.find(|(other, _)| other.overlaps(names))?;
        Some((other.clone(), used.clone()))
    })
}

impl Vm {
    fn socket_use(&self, path: &Path, what: &'static str) -> SocketUse {
        SocketUse {
            cid: self.guest_cid,
            place: path.display().to_string(),
            what,
        }
    }

    fn sockets(&self) -> Vec<(SocketNames, SocketUse)> {
        let with = |suffix: &str| {
            let mut path = self.uds_path.clone().into_os_string();
            path.push(suffix);
            PathBuf::from(path)
        };
        let used = |place: String, what| SocketUse {
            cid: self.guest_cid,
            place,
            what,
        };
        let at = |path: &Path, what| self.socket_use(path, what);
        let one = |path: PathBuf, what| (SocketNames::one(&path), at(&path, what));
        let mut sockets = vec![one(self.socket.clone(), "socket")];
        if !self.no_connect {
            sockets.push(one(self.uds_path.clone(), "uds-path"));
            sockets.push(one(with("_seqpacket"), "uds-path, for messages"));
        }
        sockets.push((
            SocketNames::each_port(&self.uds_path),
            at(&with("_PORT"), "uds-path and any port"),
        ));
        for forward in &self.forward {
            let names = SocketNames::of_target(&forward.target);
            sockets.push((names, used(forward.target.to_string(), "forward")));
        }
        for expose in &self.expose {
            let names = SocketNames::of_exposed(&expose.at);
            sockets.push((names, used(expose.at.to_string(), "expose")));
        }
        sockets
    }
}
