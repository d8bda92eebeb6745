// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::any::Any;
use std::fmt;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;

use vsock_inner::{
    VsockAddr, VsockBackend, VsockBackendType, VsockInnerBackend, VsockInnerConnector, VsockStream,
};

use crate::error::SiblingError;
use crate::groups::Groups;
use crate::members::Members;

/// A backend for the connections of one guest with others. Add it to the guest's muxer with
/// `Muxer::add_sibling_backend`.
///
/// Dropping it removes the guest from the [`Siblings`](crate::Siblings): connections that wait for
/// the guest to accept them are reset, and no guest can connect to it. Established
/// connections belong to the muxer and are not affected.
pub struct SiblingBackend {
    cid: u64,
    groups: Arc<Groups>,
    inner: VsockInnerBackend,
    members: Arc<Members>,
}

impl SiblingBackend {
    pub(crate) const fn new(
        cid: u64,
        groups: Arc<Groups>,
        inner: VsockInnerBackend,
        members: Arc<Members>,
    ) -> Self {
        Self {
            cid,
            groups,
            inner,
            members,
        }
    }

    /// Returns the connector of the guest at `to`, if `from` may connect to it.
    fn reach(&self, from: VsockAddr, to: VsockAddr) -> Result<VsockInnerConnector, SiblingError> {
        // Even if a muxer's checks failed, a guest could not use another guest's address.
        if from.cid != self.cid || to.cid == self.cid {
            return Err(SiblingError::NotBetweenGuests { from, to });
        }
        self.members.reach(to.cid, &self.groups)
    }
}

impl VsockBackend for SiblingBackend {
    fn accept(&mut self) -> io::Result<Box<dyn VsockStream>> {
        self.inner.accept()
    }

    /// Always returns `ConnectionRefused`: without a CID there is no guest to connect to.
    fn connect(&self, _dst_port: u32) -> io::Result<Box<dyn VsockStream>> {
        Err(ErrorKind::ConnectionRefused.into())
    }

    fn connect_from(&self, from: VsockAddr, to: VsockAddr) -> io::Result<Box<dyn VsockStream>> {
        let mut stream = self.reach(from, to)?.start_connect_from(from, to)?;
        stream.set_nonblocking(true)?;
        Ok(Box::new(stream))
    }

    fn has_seqpacket(&self) -> bool {
        true
    }

    fn connect_seqpacket_from(
        &self,
        from: VsockAddr,
        to: VsockAddr,
    ) -> io::Result<Box<dyn VsockStream>> {
        let connector = self.reach(from, to)?;
        let mut stream = connector.start_connect_seqpacket_from(from, to)?;
        stream.set_nonblocking(true)?;
        Ok(Box::new(stream))
    }

    fn r#type(&self) -> VsockBackendType {
        VsockBackendType::Inner
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl AsRawFd for SiblingBackend {
    /// For polling only: readable while a connection from another guest waits to be accepted.
    fn as_raw_fd(&self) -> RawFd {
        self.inner.as_raw_fd()
    }
}

impl AsFd for SiblingBackend {
    /// For polling only, like `as_raw_fd`.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

impl Drop for SiblingBackend {
    fn drop(&mut self) {
        self.members.leave(self.cid);
    }
}

impl fmt::Debug for SiblingBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SiblingBackend")
            .field("cid", &self.cid)
            .field("groups", &self.groups)
            .field("counters", &self.inner.counters())
            .finish_non_exhaustive()
    }
}
