// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Checks that no two sockets of the program and its virtual machines have the same name.

use std::fmt;
use std::path::{Path, PathBuf};

use vsock_vhost_user::SocketNames;

use super::vm::Vm;

/// A socket that a virtual machine or the program itself uses.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct SocketUse {
    /// The guest's CID, or `None` for the program's own socket.
    cid: Option<u64>,
    place: String,
    what: &'static str,
}

impl fmt::Display for SocketUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cid, place, what } = self;
        match cid {
            Some(cid) => write!(f, "guest {cid} uses {place} ({what})"),
            None => write!(f, "the program uses {place} ({what})"),
        }
    }
}

/// The purpose of the program's own socket.
const CONTROL: &str = "control";

/// The maximum length of a socket's path in bytes (Linux's `sun_path`).
pub(super) const LONGEST: usize = 107;

/// Returns the first socket whose path is too long, and the path's length.
pub(super) fn too_long(vms: &[Vm], control: Option<&Path>) -> Option<(SocketUse, usize)> {
    let used = |cid, path: &Path, what| {
        let len = path.as_os_str().len();
        (len > LONGEST).then(|| (SocketUse::new(cid, path, what), len))
    };
    let of_vm = vms.iter().find_map(|vm| {
        let cid = Some(vm.guest_cid);
        used(cid, &vm.socket, "socket").or_else(|| used(cid, &vm.uds_path, "uds-path"))
    });
    of_vm.or_else(|| used(None, control?, CONTROL))
}

/// Returns the first two sockets that would have the same name.
pub(super) fn collision(vms: &[Vm], control: Option<&Path>) -> Option<(SocketUse, SocketUse)> {
    let control = control.map(|path| (SocketNames::one(path), SocketUse::new(None, path, CONTROL)));
    let sockets: Vec<_> = vms.iter().flat_map(Vm::sockets).chain(control).collect();
    sockets.iter().enumerate().find_map(|(at, (names, used))| {
        let mut before = sockets[..at].iter();
        // Names are compared by directory and file, so two spellings of a path are the same name.
        let (_, other) = before.find(|(other, _)| other.overlaps(names))?;
        Some((other.clone(), used.clone()))
    })
}

impl SocketUse {
    fn new(cid: Option<u64>, path: &Path, what: &'static str) -> Self {
        Self {
            cid,
            place: path.display().to_string(),
            what,
        }
    }
}

impl Vm {
    fn sockets(&self) -> Vec<(SocketNames, SocketUse)> {
        let mut each_port = self.uds_path.clone().into_os_string();
        each_port.push("_PORT");
        let used = |place: String, what| SocketUse {
            cid: Some(self.guest_cid),
            place,
            what,
        };
        let at = |path: &Path, what| SocketUse::new(Some(self.guest_cid), path, what);
        let one = |path: PathBuf, what| (SocketNames::one(&path), at(&path, what));
        let mut sockets = vec![one(self.socket.clone(), "socket")];
        if !self.no_connect {
            sockets.push(one(self.uds_path.clone(), "uds-path"));
            sockets.push(one(self.seqpacket_path(), "uds-path, for messages"));
        }
        // The guest reaches these, with or without a listener on UDS_PATH itself.
        sockets.push((
            SocketNames::each_port(&self.uds_path),
            at(Path::new(&each_port), "uds-path with a port"),
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
