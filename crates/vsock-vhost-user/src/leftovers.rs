// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The socket files of backends that a device cannot drop, because one of its threads is held up.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use crate::builder::Served;
use crate::{UnixBackend, UnixSeqpacketBackend};

/// The socket files of this crate's backends, while they are those that were made.
pub(crate) struct Leftovers(Vec<Leftover>);

struct Leftover {
    path: PathBuf,
    /// Device and inode: a path is anybody's.
    identity: (u64, u64),
}

impl Leftovers {
    pub(crate) fn of(backends: &[Served]) -> Self {
        let leftovers = backends.iter().filter_map(|served| {
            let backend = served.backend.as_any();
            let streams = backend.downcast_ref().map(UnixBackend::path);
            let messages = || backend.downcast_ref().map(UnixSeqpacketBackend::path);
            let path = streams.or_else(messages)?.to_owned();
            let identity = identity(&path)?;
            Some(Leftover { path, identity })
        });
        Self(leftovers.collect())
    }

    /// Removes the files, as their backends would. These find nothing that is theirs any more then.
    pub(crate) fn remove(&self) {
        for Leftover {
            path,
            identity: made,
        } in &self.0
        {
            if identity(path) == Some(*made)
                && let Err(error) = fs::remove_file(path)
            {
                log::warn!("cannot remove {}: {error}", path.display());
            }
        }
    }
}

fn identity(path: &PathBuf) -> Option<(u64, u64)> {
    let metadata = fs::symlink_metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}
