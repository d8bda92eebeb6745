// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The part of a device that goes into a snapshot.

use std::ops::RangeInclusive;

use vsock_muxer::{MuxerState, StateVersionError};

/// The state of a device, without its queues, that a VMM saves for a snapshot or a migration. With
/// the feature `serde` it can be serialised.
///
/// The VMM keeps the state of the queues: `virtio_queue::Queue::state`. The device holds no chain
/// between two calls, so that state is complete. Connections do not survive, because their host
/// ends do not move. [`VsockDevice::restore`](crate::VsockDevice::restore) informs the guest.
///
/// To rebuild a state from its saved fields, start from the default:
///
/// ```
/// use vsock_virtio::{DeviceState, F_VERSION_1};
///
/// let (version, acked_features) = (1, F_VERSION_1); // as they were saved
/// let mut state = DeviceState::default();
/// state.version = version;
/// state.acked_features = acked_features;
/// state.active = true;
/// assert!(state.check_version().is_ok());
///
/// state.version = 2;
/// let error = state.check_version().unwrap_err();
/// assert!(error.to_string().contains("version 2, expected 1"));
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct DeviceState {
    /// The version of the other fields: [`VERSION`](Self::VERSION) if this release saved the state.
    /// It is the first field, so formats without field names have it in the same place in every
    /// version.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "known_version"))]
    pub version: u32,
    /// The features that the driver had accepted.
    pub acked_features: u64,
    /// Whether the device was active.
    pub active: bool,
    /// The part of its muxer that survives a snapshot.
    pub muxer: MuxerState,
}

impl DeviceState {
    /// The version that this release saves.
    pub const VERSION: u32 = 1;
    const KNOWN: RangeInclusive<u32> = 1..=Self::VERSION;

    /// Checks that this release can restore this version of the state, and that of its muxer.
    ///
    /// # Errors
    ///
    /// Returns [`StateVersionError`] otherwise, which names the versions that this release
    /// supports.
    pub fn check_version(&self) -> Result<(), StateVersionError> {
        StateVersionError::check(self.version, Self::KNOWN)?;
        self.muxer.check_version()
    }
}

/// The state of a device that no driver has used.
impl Default for DeviceState {
    fn default() -> Self {
        Self {
            version: Self::VERSION,
            acked_features: 0,
            active: false,
            muxer: MuxerState::default(),
        }
    }
}

/// Refuses an unknown version during deserialisation, before the format reports other fields as
/// missing or unknown.
#[cfg(feature = "serde")]
fn known_version<'de, D: serde::Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    let version = serde::Deserialize::deserialize(from)?;
    StateVersionError::check(version, DeviceState::KNOWN).map_err(serde::de::Error::custom)?;
    Ok(version)
}
