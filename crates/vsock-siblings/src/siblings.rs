// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::fmt;
use std::io;
use std::sync::Arc;

use thiserror::Error;
use vsock_inner::{VsockInnerBackend, VsockInnerConfig};

use crate::backend::SiblingBackend;
use crate::groups::Groups;
use crate::members::{Member, Members};

/// A set of guests that can connect to each other, depending on their groups. All clones share the
/// same guests.
///
/// See the [crate documentation](crate) for an example.
#[derive(Clone, Default)]
pub struct Siblings {
    members: Arc<Members>,
    config: VsockInnerConfig,
}

impl Siblings {
    /// Creates an empty set, with the default limits for connections.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Like [`new`](Self::new), with other limits.
    ///
    /// The capacities apply to each connection. [`to_device`](VsockInnerConfig::to_device) is the
    /// direction towards the guest that accepts it. [`pending`](VsockInnerConfig::pending) is the
    /// maximum number of connections that wait for one guest to accept them. A message longer than
    /// a capacity ends its connection, so no capacity should be less than the muxers'
    /// `max_message`.
    #[must_use]
    pub fn with_config(config: VsockInnerConfig) -> Self {
        Self {
            members: Arc::default(),
            config,
        }
    }

    /// Adds a guest. Dropping the returned backend removes it.
    ///
    /// # Errors
    ///
    /// See [`JoinError`].
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

/// An error from adding a guest.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum JoinError {
    /// Another guest has the CID.
    #[error("another guest already has CID {cid}")]
    CidTaken {
        /// The CID.
        cid: u64,
    },
    /// The backend could not be created, because the limits are invalid or the process has no
    /// descriptor left.
    #[error("cannot create the backend for connections with other guests")]
    Backend(#[source] io::Error),
}
