// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Limits of a backend and its streams.

use std::io;
use std::time::Duration;

use thiserror::Error;

/// The default capacity of a direction: 256 KiB.
pub const DEFAULT_CAPACITY: usize = 256 * 1024;

/// The largest capacity of a direction: 1 GiB.
pub const MAX_CAPACITY: usize = 1 << 30;

/// How many bytes a direction holds before its writer must wait.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Capacity {
    /// This many bytes, from 1 to [`MAX_CAPACITY`].
    Bytes(usize),
    /// As many as there is memory for: a write never waits.
    ///
    /// In the direction to the application, this lets a guest fill the memory of the host. Use it
    /// only for programs that rely on writes that never wait.
    Unbounded,
}

impl Default for Capacity {
    fn default() -> Self {
        Self::Bytes(DEFAULT_CAPACITY)
    }
}

/// Generates a setter of the same name for each field.
macro_rules! setters {
    ($($field:ident: $type:ty),+ $(,)?) => {$(
        #[doc = concat!(
            "Sets [`", stringify!($field), "`](Self#structfield.", stringify!($field), ").",
        )]
        #[must_use]
        pub const fn $field(mut self, $field: $type) -> Self {
            self.$field = $field;
            self
        }
    )+};
}

/// Limits of a [backend](crate::VsockInnerBackend) and its streams.
///
/// Set the fields, or chain the setters of the same names. Every field is checked when a backend or
/// a pair is created.
///
/// # Memory
///
/// An unused connection needs about 2 KiB and two descriptors, and one more for each
/// `write_ready_fd` that was taken. Data is stored in blocks of 16 KiB. A direction that was never
/// used holds no block. A direction in use holds what is queued and at most 512 KiB more; after it
/// has been drained, it keeps one block. In addition, the process keeps up to 8 MiB of blocks for
/// all streams together: unused ones, and those that drained directions keep while their readers
/// are busy. Excess blocks are returned to the system.
///
/// A backend therefore uses, for each connection, at most both capacities plus 1 MiB. Connections
/// are those that its users keep open, and up to [`pending`] that wait to be accepted.
///
/// [`pending`]: Self::pending
///
/// ```
/// use vsock_inner::{Capacity, VsockInnerBackend, VsockInnerConfig};
///
/// let config = VsockInnerConfig::default().to_device(Capacity::Bytes(1 << 20)).pending(16);
/// let backend = VsockInnerBackend::with_config(config)?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct VsockInnerConfig {
    /// The capacity from the application to the device. Default: [`DEFAULT_CAPACITY`].
    pub to_device: Capacity,
    /// The capacity from the device to the application. Default: [`DEFAULT_CAPACITY`].
    pub to_application: Capacity,
    /// How many connections may wait to be accepted, at the backend and at each listener. Further
    /// connections are refused; with 0, all are. Connections to the guest that were given up before
    /// the device took them make room for others. Default: 1,024.
    pub pending: usize,
    /// How long [`connect_to`](crate::VsockInnerConnector::connect_to) waits for the guest to
    /// confirm; must not be zero. Default: 5 s.
    ///
    /// The muxer has its own limits for an unresponsive guest, `deliver_timeout` (3 s by default)
    /// and `response_timeout` (2 s) in its `Config`. Whichever expires first applies.
    pub connect_timeout: Duration,
    /// How long a blocking call polls before its thread sleeps. Waking a polling thread takes no
    /// system call, but polling uses processor time. Polling that repeatedly finds nothing is tried
    /// less and less often.
    ///
    /// Within the same budget, but for at most 2 us, a read that drains a stream with a polled
    /// descriptor looks for more data, and a write that answers such a read looks for the next
    /// request. Zero disables polling. Default: 50 us.
    pub spin_budget: Duration,
}

impl Default for VsockInnerConfig {
    fn default() -> Self {
        Self {
            to_device: Capacity::default(),
            to_application: Capacity::default(),
            pending: 1024,
            connect_timeout: Duration::from_secs(5),
            spin_budget: Duration::from_micros(50),
        }
    }
}

impl VsockInnerConfig {
    setters! {
        to_device: Capacity,
        to_application: Capacity,
        pending: usize,
        connect_timeout: Duration,
        spin_budget: Duration,
    }

    pub(crate) fn check(&self) -> Result<(), VsockInnerConfigError> {
        for capacity in [self.to_device, self.to_application] {
            match capacity {
                Capacity::Bytes(bytes) if bytes == 0 || bytes > MAX_CAPACITY => {
                    return Err(VsockInnerConfigError::Capacity { bytes });
                }
                Capacity::Bytes(_) | Capacity::Unbounded => {}
            }
        }
        if self.connect_timeout.is_zero() {
            return Err(VsockInnerConfigError::ConnectTimeout);
        }
        Ok(())
    }
}

/// Why a configuration was rejected. As an [`io::Error`] it is `InvalidInput`.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum VsockInnerConfigError {
    /// The capacity of a direction is out of range.
    #[error("invalid capacity: expected 1 to {MAX_CAPACITY} bytes or unbounded, found {bytes}")]
    Capacity {
        /// The configured number of bytes.
        bytes: usize,
    },
    /// The connect timeout is zero.
    #[error("invalid value for `connect_timeout`: expected more than zero")]
    ConnectTimeout,
}

impl From<VsockInnerConfigError> for io::Error {
    fn from(error: VsockInnerConfigError) -> Self {
        Self::new(io::ErrorKind::InvalidInput, error)
    }
}
