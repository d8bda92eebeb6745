// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use thiserror::Error;

/// Why a muxer cannot be set up as asked.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum MuxerError {
    /// The port has a backend already.
    #[error("guest connections to port {port} have a backend already")]
    PortTaken {
        /// The port.
        port: u32,
    },
    /// The backend belongs to another muxer.
    #[error("the muxer has no such backend")]
    UnknownBackend,
    /// There are as many backends as a muxer takes.
    #[error("a muxer takes {limit} backends")]
    TooManyBackends {
        /// How many it takes.
        limit: usize,
    },
}
