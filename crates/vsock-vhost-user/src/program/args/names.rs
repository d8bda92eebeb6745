// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The sockets of virtual machines, of which no two may have one name.

use std::fmt;
use std::path::{Path, PathBuf};

use vsock_vhost_user::SocketNames;

use super::vm::Vm;

/// A socket that a virtual machine uses, or the program.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct SocketUse {
    /// Of the guest; `None`: the program's own.
    cid: Option<u64>,
    place: String,
    what: &'static str,
}

impl fmt::Display for SocketUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cid, place, what } = self;
        match cid {
            Some(cid) => write!(f, "guest {cid} has {place} ({what})"),
            None => write!(f, "the program has {place} ({what})"),
        }
    }
}
/// The first two sockets that would have one name.
pub(super) fn collision(vms: &[Vm], control: Option<&Path>) -> Option<(SocketUse, SocketUse)> {
    let control = control.map(|path| {
        let used = SocketUse {
            cid: None,
            place: path.display().to_string(),
            what: "control",
        };
        (SocketNames::one(path), used)
    });
    let sockets: Vec<_> = vms.iter().flat_map(Vm::sockets).chain(control).collect();
    sockets.iter().enumerate().find_map(|(at, (names, used))| {
        let mut before = sockets[..at].iter();
        let (_, other) = before.find(|(other, _)| other.overlaps(names))?;
        Some((other.clone(), used.clone()))
    })
}

impl Vm {
    fn sockets(&self) -> Vec<(SocketNames, SocketUse)> {
        let with = |suffix: &str| {
            let mut path = self.uds_path.clone().into_os_string();
            path.push(suffix);
            PathBuf::from(path)
        };
        let used = |place: String, what| SocketUse {
            cid: Some(self.guest_cid),
            place,
            what,
        };
        let at = |path: &Path, what| used(path.display().to_string(), what);
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
