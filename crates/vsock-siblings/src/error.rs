// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io::{self, ErrorKind};

use thiserror::Error;
use vsock_inner::VsockAddr;

/// Why a guest is not connected to another one. As an [`io::Error`] it is `ConnectionRefused`.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum SiblingError {
    /// There is no such guest.
    #[error("connecting to guest {cid}: there is none")]
    NoGuest {
        /// Its CID.
        cid: u64,
    },
    /// The guests have no group in common.
    #[error("connecting to guest {cid}: it is in none of this guest's groups")]
    NoCommonGroup {
        /// Its CID.
        cid: u64,
    },
    /// The addresses are not those of the backend's guest and another one.
    #[error("connecting {from} to {to}: expected this guest's address and another guest's")]
    NotBetweenGuests {
        /// Where the connection was to come from.
        from: VsockAddr,
        /// Where it was to go.
        to: VsockAddr,
    },
}

impl From<SiblingError> for io::Error {
    fn from(error: SiblingError) -> Self {
        Self::new(ErrorKind::ConnectionRefused, error)
    }
}
