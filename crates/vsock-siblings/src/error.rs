// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io::{self, ErrorKind};

use thiserror::Error;
use vsock_inner::VsockAddr;

/// An error from connecting to another guest. As an [`io::Error`], its kind is
/// `ConnectionRefused`.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum SiblingError {
    /// No guest has the CID.
    #[error("cannot connect to guest {cid}: there is no such guest")]
    NoGuest {
        /// The CID of the missing guest.
        cid: u64,
    },
    /// The guests have no group in common.
    #[error("cannot connect to guest {cid}: it has no group in common with this guest")]
    NoCommonGroup {
        /// The CID of the other guest.
        cid: u64,
    },
    /// The connection would not go from the backend's guest to another one.
    #[error("cannot connect {from} to {to}: expected a connection from this guest to another")]
    NotBetweenGuests {
        /// The address to connect from.
        from: VsockAddr,
        /// The address to connect to.
        to: VsockAddr,
    },
}

impl From<SiblingError> for io::Error {
    fn from(error: SiblingError) -> Self {
        Self::new(ErrorKind::ConnectionRefused, error)
    }
}
