// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The part of a muxer that goes into a snapshot.

use std::ops::RangeInclusive;

use thiserror::Error;

/// The part of a muxer that survives a snapshot or a migration: plain numbers, for the device to
/// put into its own format. With the feature `serde` it can be serialised.
///
/// Connections do not survive. Their host ends are streams of this process, whose other ends may
/// have gone or moved on by the time of the restore; and the guest's window would have to match the
/// bytes of the stream. So a restored device sends its guest
/// `VIRTIO_VSOCK_EVENT_TRANSPORT_RESET` (virtio 1.3, 5.10.6.7); the guest then resets its
/// connections and keeps its listeners.
///
/// A muxer accepts every value of every field except the version: a damaged or forged snapshot does
/// no harm. To rebuild a state from its saved fields, start from the default:
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
    /// What the other fields are: [`VERSION`](Self::VERSION) if this release saved the state. It is
    /// the first field, so that every version has it in the same place in a format without names.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "known_version"))]
    pub version: u32,
    /// The next host port to try, so that a restored guest does not see ports of connections that
    /// it may still remember. A port outside the configured range means the first of the range.
    pub next_host_port: u32,
    /// The number of connections when the state was saved, which the guest loses in the restore.
    pub connections: u64,
}

impl MuxerState {
    /// The version that this release saves.
    pub const VERSION: u32 = 1;
    const KNOWN: RangeInclusive<u32> = 1..=Self::VERSION;

    /// Checks that this release can restore a state of this version.
    ///
    /// # Errors
    ///
    /// [`StateVersionError`] if not; it says which versions this release knows.
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

/// A saved state has a version that this release does not know: older than it reads, or newer than
/// it saves.
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
    /// Checks that this release knows a version.
    ///
    /// # Errors
    ///
    /// This error, if it does not.
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

/// Refuses an unknown version during deserialisation, before the format reports other fields as
/// missing or unknown.
#[cfg(feature = "serde")]
fn known_version<'de, D: serde::Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    let version = serde::Deserialize::deserialize(from)?;
    StateVersionError::check(version, MuxerState::KNOWN).map_err(serde::de::Error::custom)?;
    Ok(version)
}
