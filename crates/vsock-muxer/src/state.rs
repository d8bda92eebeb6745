// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What of a muxer is put into a snapshot.

use std::ops::RangeInclusive;

use thiserror::Error;

/// What of a muxer outlives a snapshot or a migration: plain numbers, for the device to put into
/// its own format. With the feature `serde` it can be serialised.
///
/// Connections do not. Their host ends are streams of this process, whose other ends may be gone,
/// or have gone on, by the time of the restore; and the guest's window and the stream's bytes would
/// have to be of one moment. So a restored device tells its guest
/// `VIRTIO_VSOCK_EVENT_TRANSPORT_RESET` (virtio 1.3, 5.10.6.7), upon which the guest resets its
/// connections and keeps its listeners.
///
/// A muxer takes every value of every field but the version: a snapshot that was damaged or forged
/// does no harm. One that was written down field by field is put together from the default:
///
/// ```
/// use vsock_muxer::MuxerState;
///
/// let (version, next_host_port) = (1, 1 << 30); // as they were saved
/// let mut state = MuxerState::default();
/// state.version = version;
/// state.next_host_port = next_host_port;
/// assert!(state.check_version().is_ok());
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct MuxerState {
    /// What the other fields are: [`VERSION`](Self::VERSION) when this release has saved it. It is
    /// the first field, so that a format without names has it in the same place in every version.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "known_version"))]
    pub version: u32,
    /// The host port that is tried next: a restored guest does not see the ports of connections
    /// that it may still remember. One outside the configured range means the range's first.
    pub next_host_port: u32,
    /// Connections that there were, and that the guest loses by the restore.
    pub connections: u64,
}

impl MuxerState {
    /// The version that this release saves.
    pub const VERSION: u32 = 1;
    const KNOWN: RangeInclusive<u32> = 1..=Self::VERSION;

    /// Whether this release can go on from a state of this version.
    ///
    /// # Errors
    ///
    /// [`StateVersionError`], which says which versions it knows.
    pub fn check_version(&self) -> Result<(), StateVersionError> {
        StateVersionError::check(self.version, Self::KNOWN)
    }
}

/// The state of a muxer that has had no connection.
impl Default for MuxerState {
    fn default() -> Self {
        Self {
            version: Self::VERSION,
            next_host_port: 0,
            connections: 0,
        }
    }
}

/// A saved state is of a version that this release does not know: older than it reads, or newer
/// than it saves.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error(
    "saved state has version {found}, expected {oldest} to {newest}; restore it with the release \
     that saved it"
)]
pub struct StateVersionError {
    /// The version of the saved state.
    pub found: u32,
    /// The oldest version that is read.
    pub oldest: u32,
    /// The newest version that is read, which is the one that is saved.
    pub newest: u32,
}

impl StateVersionError {
    /// Whether a version is one of those that are known.
    ///
    /// # Errors
    ///
    /// This error, if it is not.
    pub fn check(found: u32, known: RangeInclusive<u32>) -> Result<(), Self> {
        if known.contains(&found) {
            return Ok(());
        }
        let (oldest, newest) = known.into_inner();
        Err(Self {
            found,
            oldest,
            newest,
        })
    }
}

/// Refuses a version while it is read, before what else is missing or unknown would be complained
/// of.
#[cfg(feature = "serde")]
fn known_version<'de, D: serde::Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    let version = serde::Deserialize::deserialize(from)?;
    StateVersionError::check(version, MuxerState::KNOWN).map_err(serde::de::Error::custom)?;
    Ok(version)
}
