// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thiserror::Error;
use vsock_inner::{VsockInnerBackend, VsockInnerConfig, VsockInnerConnector};

use crate::backend::{SiblingBackend, SiblingError};
use crate::groups::Groups;

/// The guests that may talk to each other, by their groups. It can be cloned; every clone is of the same guests.
///
/// See the [crate](crate)'s documentation.
#[derive(Clone, Default)]
pub struct Siblings {
    members: Arc<Members>,
    config: VsockInnerConfig,
}

/// Who is there. The lock is held to look, and no other one meanwhile.
#[derive(Default)]
pub(crate) struct Members(Mutex<HashMap<u64, Member>>);

/// A guest, as another one reaches it.
struct Member {
    groups: Arc<Groups>,
    connector: VsockInnerConnector,
}

impl Siblings {
    /// No guest so far; their connections will have the usual limits.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// As [`new`](Self::new), with other limits: capacities are those of each connection,
    /// [`to_device`](VsockInnerConfig::to_device) towards the guest that is connected to;
    /// [`pending`](VsockInnerConfig::pending) is how many may wait for one guest. A message longer than
    /// a capacity ends its connection, so none should be less than the muxers' `max_message`.
    #[must_use]
    pub fn with_config(config: VsockInnerConfig) -> Self {
        Self {
            members: Arc::default(),
            config,
        }
    }

    /// Adds the guest with this CID. It is there until the backend is dropped.
    ///
    /// # Errors
    ///
    /// [`JoinError`].
    pub fn join(&self, cid: u64, groups: Groups) -> Result<SiblingBackend, JoinError> {
        let inner = VsockInnerBackend::with_config(self.config).map_err(JoinError::Backend)?;
        let groups = Arc::new(groups);
        let member = Member {
            groups: Arc::clone(&groups),
            connector: inner.get_connector(),
        };
        match self.members.lock().entry(cid) {
            Entry::Occupied(_) => return Err(JoinError::CidTaken { cid }),
            Entry::Vacant(place) => place.insert(member),
        };
        Ok(SiblingBackend::new(
            cid,
            groups,
            inner,
            Arc::clone(&self.members),
        ))
    }
}

impl fmt::Debug for Siblings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Siblings")
            .field("guests", &self.members.lock().len())
            .field("config", &self.config)
            .finish()
    }
}

impl Members {
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

/// Why a guest was not added.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum JoinError {
    /// Another guest has the CID.
    #[error("CID {cid} is taken by another guest")]
    CidTaken {
        /// The CID.
        cid: u64,
    },
    /// Its backend could not be made: the limits are not valid, or the process has no descriptor left.
    #[error("cannot make the backend for connections with other guests")]
    Backend(#[source] io::Error),
}
