// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What devices and backends of this process have for themselves: CIDs, and names of sockets.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vsock_proto::GuestCid;

use crate::names::SocketNames;

static CLAIMED: Mutex<BTreeSet<GuestCid>> = Mutex::new(BTreeSet::new());

fn claimed() -> MutexGuard<'static, BTreeSet<GuestCid>> {
    // A set of numbers is whole after a panic, too.
    CLAIMED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A CID that no other device of the process can have while this lives.
#[derive(Debug)]
pub(crate) struct CidClaim(GuestCid);

impl CidClaim {
    /// `None` if another device has it.
    pub(crate) fn new(cid: GuestCid) -> Option<Self> {
        let new = claimed().insert(cid);
        new.then(|| Self(cid))
    }

    pub(crate) fn cid(&self) -> GuestCid {
        self.0
    }
}

impl Drop for CidClaim {
    fn drop(&mut self) {
        claimed().remove(&self.0);
    }
}

static NAMES: Mutex<Vec<Arc<[SocketNames]>>> = Mutex::new(Vec::new());

fn names() -> MutexGuard<'static, Vec<Arc<[SocketNames]>>> {
    // Names are added and removed whole, also by a thread that panics.
    NAMES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Names that nothing else in the process can listen on, or let a guest reach, while this lives.
#[derive(Debug)]
pub(crate) struct NameClaim(Arc<[SocketNames]>);

impl NameClaim {
    /// # Errors
    ///
    /// `AddrInUse`: there is a socket with one of the names.
    pub(crate) fn new<const N: usize>(wanted: [SocketNames; N]) -> io::Result<Self> {
        let mut names = names();
        let mut taken = names.iter().flat_map(|names| names.iter());
        if taken.any(|taken| wanted.iter().any(|wanted| wanted.overlaps(taken))) {
            let message = "another socket of this process has the name, or a guest of it reaches the name \
                           as a port: choose another name or directory";
            return Err(io::Error::new(ErrorKind::AddrInUse, message));
        }
        let wanted = Arc::new(wanted);
        names.push(Arc::clone(&wanted) as Arc<[SocketNames]>);
        Ok(Self(wanted))
    }
}

impl Drop for NameClaim {
    fn drop(&mut self) {
        names().retain(|names| !Arc::ptr_eq(names, &self.0));
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn t125_a_name_belongs_to_one_socket_and_is_free_after_it() {
        let vm = Path::new("/nowhere/vm");
        let first = NameClaim::new([SocketNames::one(vm), SocketNames::each_port(vm)]).unwrap();
        let service = || NameClaim::new([SocketNames::one(Path::new("/nowhere/vm_1"))]);
        assert_eq!(service().unwrap_err().kind(), ErrorKind::AddrInUse);
        // Messages beside streams.
        NameClaim::new([SocketNames::each_port(vm)]).unwrap();
        drop(first);
        service().unwrap();
    }

    #[test]
    fn t11_a_cid_belongs_to_one_device_and_is_free_after_it() {
        let cid = GuestCid::try_from(0xFFFF_0001).unwrap();
        let first = CidClaim::new(cid).unwrap();
        assert!(CidClaim::new(cid).is_none());
        assert_eq!(first.cid(), cid);
        drop(first);
        assert!(CidClaim::new(cid).is_some());
    }
}
