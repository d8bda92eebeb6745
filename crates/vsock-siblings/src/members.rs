// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vsock_inner::VsockInnerConnector;

use crate::error::SiblingError;
use crate::groups::Groups;

/// The guests that have joined, by CID. The lock is held only for a lookup or a change of the map,
/// and no other lock is taken meanwhile.
#[derive(Default)]
pub(crate) struct Members(Mutex<HashMap<u64, Member>>);

/// A guest that other guests can connect to.
pub(crate) struct Member {
    pub(crate) groups: Arc<Groups>,
    pub(crate) connector: VsockInnerConnector,
}

impl Members {
    /// Adds a guest. Returns `false` if its CID is taken.
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

    /// Returns the connector of guest `cid`, for a guest with these groups.
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

    /// Removes a guest.
    pub(crate) fn leave(&self, cid: u64) {
        let member = self.lock().remove(&cid);
        // Not under the lock: dropping the connector can wake another thread.
        drop(member);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Member>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
