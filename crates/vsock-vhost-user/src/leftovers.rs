// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The socket files of backends that a device cannot drop, because one of its threads is held up.

use crate::builder::Served;
use crate::socket_file::Remover;
use crate::{UnixBackend, UnixSeqpacketBackend};

/// The socket files of this crate's backends.
pub(crate) struct Leftovers(Vec<Remover>);

impl Leftovers {
    pub(crate) fn of(backends: &[Served]) -> Self {
        let removers = backends.iter().filter_map(|served| {
            let backend = served.backend.as_any();
            let streams = backend.downcast_ref().map(UnixBackend::remover);
            let messages = || backend.downcast_ref().map(UnixSeqpacketBackend::remover);
            streams.or_else(messages)
        });
        Self(removers.collect())
    }

    /// Removes the files, as their backends would.
    pub(crate) fn remove(&self) {
        self.0.iter().for_each(Remover::remove);
    }
}
