// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vsock_inner::VsockInnerConnector;

use crate::error::SiblingError;
use crate::groups::Groups;

/// Who is there. The lock is held to look, and no other one meanwhile.
#[derive(Default)]
pub(crate) struct Members(Mutex<HashMap<u64, Member>>);

/// A guest, as another one reaches it.
pub(crate) struct Member {
    pub(crate) groups: Arc<Groups>,
    pub(crate) connector: VsockInnerConnector,
}

impl Members {
    /// Adds a guest, unless its CID is taken; returns whether it did.
    pub(crate) fn join(&self, cid: u64, member: Member) -> bool {
        match self.lock().entry(cid) {
            Entry::Occupied(_) => false,
            Entry::Vacant(place) => {
                place.insert(member);
                true
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    /// How guest `cid` is reached by one that has these groups.
    pub(crate) fn reach(
        &self,
        cid: u64,
        groups: &Groups,
    ) -> Result<VsockInnerConnector, SiblingError> {
        match self.lock().get(&cid) {
            None => Err(SiblingError::NoGuest { cid }),
            Some(member) if !member.groups.share_one_with(groups) => {
                Err(SiblingError::NoCommonGroup { cid })
            }
            Some(member) => Ok(member.connector.clone()),
        }
    }

    pub(crate) fn leave(&self, cid: u64) {
        let member = self.lock().remove(&cid);
        drop(member); // not under the lock
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Member>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
