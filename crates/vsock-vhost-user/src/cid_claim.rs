// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Ensures that a process has at most one device for each CID.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use vsock_proto::GuestCid;

static CLAIMED: Mutex<BTreeSet<GuestCid>> = Mutex::new(BTreeSet::new());

fn claimed() -> MutexGuard<'static, BTreeSet<GuestCid>> {
    // A panic cannot leave a set of numbers inconsistent.
    CLAIMED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A CID that no other device of the process can have while this exists.
#[derive(Debug)]
pub(crate) struct CidClaim(GuestCid);

impl CidClaim {
    /// Claims a CID. Returns `None` if another device has it.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t11_a_cid_belongs_to_one_device_until_that_device_is_dropped() {
        let cid = GuestCid::try_from(0xFFFF_0001).unwrap();
        let first = CidClaim::new(cid).unwrap();
        assert!(CidClaim::new(cid).is_none());
        assert_eq!(first.cid(), cid);
        drop(first);
        assert!(CidClaim::new(cid).is_some());
    }
}
