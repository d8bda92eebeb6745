// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use super::error::CaptureError;
use super::vsockmon;

/// Limits of a [`Capture`](crate::Capture).
///
/// ```
/// use vsock_vhost_user::CaptureConfig;
///
/// let headers_only = CaptureConfig::default().payload_bytes(0);
/// assert_eq!(headers_only.payload_bytes, 0);
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct CaptureConfig {
    /// The maximum number of payload bytes to store for each packet: 0 to 65,536, default 128.
    /// Headers are always complete.
    pub payload_bytes: u32,
    /// The maximum number of bytes that wait to be written: 128 KiB to 1 GiB, default 4 MiB.
    /// Packets that find no room are dropped and counted. The capture can use twice this memory.
    pub queue_bytes: usize,
    /// The maximum size of the file in bytes: at least 4,096, default 1 GiB. The capture ends
    /// before the packet that would exceed it.
    pub file_bytes: u64,
}

impl Default for CaptureConfig {
    fn default() -> Self {
        Self {
            payload_bytes: 128,
            queue_bytes: 4 << 20,
            file_bytes: 1 << 30,
        }
    }
}

impl CaptureConfig {
    /// Sets [`payload_bytes`](Self::payload_bytes).
    #[must_use]
    pub const fn payload_bytes(mut self, bytes: u32) -> Self {
        self.payload_bytes = bytes;
        self
    }

    /// Sets [`queue_bytes`](Self::queue_bytes).
    #[must_use]
    pub const fn queue_bytes(mut self, bytes: usize) -> Self {
        self.queue_bytes = bytes;
        self
    }

    /// Sets [`file_bytes`](Self::file_bytes).
    #[must_use]
    pub const fn file_bytes(mut self, bytes: u64) -> Self {
        self.file_bytes = bytes;
        self
    }

    pub(super) fn check(&self) -> Result<(), CaptureError> {
        let queue_bytes = u64::try_from(self.queue_bytes).unwrap_or(u64::MAX);
        for (field, value, least, most) in [
            ("payload_bytes", self.payload_bytes.into(), 0, 64 << 10),
            ("queue_bytes", queue_bytes, 128 << 10, 1 << 30),
            ("file_bytes", self.file_bytes, 4096, u64::MAX),
        ] {
            if !(least..=most).contains(&value) {
                return Err(CaptureError::Limit {
                    field,
                    value,
                    least,
                    most,
                });
            }
        }
        Ok(())
    }

    /// The maximum size of a packet in the file, in bytes.
    pub(super) fn snap_len(&self) -> u32 {
        let headers = u32::try_from(vsockmon::LEN).unwrap_or(u32::MAX);
        headers.saturating_add(self.payload_bytes)
    }
}
