// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The addresses of a connection. Not every device reports them.

use std::io::{self, ErrorKind};

use thiserror::Error;
use vsock_inner::VsockAddr;

/// Why an address is not known.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum AddrError {
    /// The device did not report it, or the stream has no device, like a pair: `AddrNotAvailable`.
    #[error("unknown address: the device of this vsock stream did not report it")]
    Unknown,
}

impl From<AddrError> for io::Error {
    fn from(error: AddrError) -> Self {
        Self::new(ErrorKind::AddrNotAvailable, error)
    }
}

/// Returns an address in the form that sockets do.
pub(crate) fn known(addr: Option<VsockAddr>) -> io::Result<VsockAddr> {
    addr.ok_or_else(|| AddrError::Unknown.into())
}

/// The addresses that a stream had when it was split.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends {
    pub(crate) peer: Option<VsockAddr>,
    pub(crate) local: Option<VsockAddr>,
}
