// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::fmt;
use std::io;
use std::sync::Arc;

use thiserror::Error;
use vsock_inner::{VsockInnerBackend, VsockInnerConfig};

use crate::backend::SiblingBackend;
use crate::groups::Groups;
use crate::members::{Member, Members};

/// The guests that may talk to each other, by their groups. It can be cloned; every clone is of the
/// same guests.
///
/// See the [crate](crate)'s documentation.
#[derive(Clone, Default)]
pub struct Siblings {
    members: Arc<Members>,
    config: VsockInnerConfig,
}

impl Siblings {
    /// No guest so far; their connections will have the usual limits.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// As [`new`](Self::new), with other limits: capacities are those of each connection,
    /// [`to_device`](VsockInnerConfig::to_device) towards the guest that is connected to;
    /// [`pending`](VsockInnerConfig::pending) is how many may wait for one guest. A message longer
    /// than a capacity ends its connection, so none should be less than the muxers' `max_message`.
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
        if !self.members.join(cid, member) {
            return Err(JoinError::CidTaken { cid });
        }
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
            .field("guests", &self.members.len())
            .field("config", &self.config)
            .finish()
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
    /// Its backend could not be made: the limits are not valid, or the process has no descriptor
    /// left.
    #[error("cannot make the backend for connections with other guests")]
    Backend(#[source] io::Error),
}
