// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The part of a muxer that a snapshot contains.

use std::ops::RangeInclusive;

use thiserror::Error;

/// The part of a muxer that survives a snapshot or a migration: plain numbers that the device
/// stores in its own format. With the feature `serde`, it can be serialised.
///
/// Connections do not survive. Their host ends are streams of this process, whose peers may have
/// gone or advanced by the time of the restore, and the guest's window would have to match the
/// bytes in the stream. A restored device therefore sends its guest
/// `VIRTIO_VSOCK_EVENT_TRANSPORT_RESET` (virtio 1.3, 5.10.6.7); the guest then resets its
/// connections and keeps its listeners.
///
/// A muxer accepts any value in every field except the version, so a damaged or forged snapshot is
/// harmless. To rebuild a state from its saved fields, start from the default:
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
    /// The version of the other fields: [`VERSION`](Self::VERSION) if this release saved the state.
    /// It is the first field, so it is found in the same place in every version, even in a format
    /// without field names.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "known_version"))]
    pub version: u32,
    /// The next host port to try. It ensures that a restored guest does not see ports of
    /// connections of which it may still have a record. A port outside the configured range means
    /// the first one of the range.
    pub next_host_port: u32,
    /// The number of connections when the state was saved, all of which the guest loses in the
    /// restore.
    pub connections: u64,
}

impl MuxerState {
    /// The version that this release saves.
    pub const VERSION: u32 = 1;
    const KNOWN: RangeInclusive<u32> = 1..=Self::VERSION;

    /// Checks whether this release can restore a state of this version.
    ///
    /// # Errors
    ///
    /// [`StateVersionError`] if it cannot; the error contains the supported versions.
    pub fn check_version(&self) -> Result<(), StateVersionError> {
        StateVersionError::check(self.version, Self::KNOWN)
    }
}

/// Returns the state of a muxer that has never had a connection.
impl Default for MuxerState {
    fn default() -> Self {
        Self {
            version: Self::VERSION,
            next_host_port: 0,
            connections: 0,
        }
    }
}

/// An error returned when a saved state has an unsupported version: older than this release reads,
/// or newer than it saves.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error(
    "saved state has version {found}, expected {oldest} to {newest}; restore it with the release \
     that saved it"
)]
pub struct StateVersionError {
    /// The version of the saved state.
    pub found: u32,
    /// The oldest supported version.
    pub oldest: u32,
    /// The newest supported version, which this release saves.
    pub newest: u32,
}

impl StateVersionError {
    /// Checks whether this release supports a version.
    ///
    /// # Errors
    ///
    /// Returns this error if it does not.
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
