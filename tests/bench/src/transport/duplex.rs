// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use tokio::io::{DuplexStream, duplex};

/// `tokio::io::duplex`, each end driven by a runtime of its own on a thread of its own.
///
/// It has no descriptor and no blocking call, so it takes part where a future can do the job.
pub(crate) struct Duplex {
    /// Bytes that each direction holds.
    pub(crate) capacity: usize,
}

impl Duplex {
    /// Makes a connected pair of ends.
    pub(crate) fn pair(&self) -> (DuplexStream, DuplexStream) {
        duplex(self.capacity)
    }
}
