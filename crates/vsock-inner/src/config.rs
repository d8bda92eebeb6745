// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Limits of a backend and its streams.

use std::io;
use std::time::Duration;

use thiserror::Error;

/// The capacity of a direction unless configured otherwise: 256 KiB.
pub const DEFAULT_CAPACITY: usize = 256 * 1024;

/// The largest capacity of a direction that can be configured: 1 GiB.
pub const MAX_CAPACITY: usize = 1 << 30;

/// How many bytes a direction holds before its writer has to wait.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Capacity {
    /// Exactly this many, from 1 to [`MAX_CAPACITY`].
    Bytes(usize),
    /// As many as there is memory for: a write never waits.
    ///
    /// Towards the application this lets a guest fill the memory of the host. It is for programs
    /// that rely on writes that never wait, and never the default.
    Unbounded,
}

impl Default for Capacity {
    fn default() -> Self {
        Self::Bytes(DEFAULT_CAPACITY)
    }
}

/// A setter of the same name for each field.
macro_rules! setters {
    ($($field:ident: $type:ty),+ $(,)?) => {$(
        #[doc = concat!("Sets [`", stringify!($field), "`](Self#structfield.", stringify!($field), ").")]
        #[must_use]
        pub const fn $field(mut self, $field: $type) -> Self {
            self.$field = $field;
            self
        }
    )+};
}

/// What a [backend](crate::VsockInnerBackend) and its streams are allowed to use.
///
/// Set the fields, or chain the setters of the same names. Every field is checked when a backend or
/// a pair is made.
///
/// Bytes lie in blocks of 16 KiB. A direction that was never used holds no block; one in use what
/// is queued and at most 512 KiB more; a drained one keeps one. For all streams together the
/// process keeps up to 8 MiB of blocks that are unused, or that drained directions keep while their
/// readers are at work; what is beyond goes back to the system. So a backend holds at most the
/// connections that its users keep open, and up to [`pending`] that wait to be accepted, times both
/// capacities and 1 MiB.
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
    /// How many connections may wait to be accepted, at the backend and at each listener; one more
    /// is refused; with 0, all are. Connections to a port of the guest that were given up before
    /// the device took them make room for others. Default: 1,024.
    pub pending: usize,
    /// How long [`connect_to`](crate::VsockInnerConnector::connect_to) takes at most, until the
    /// guest has confirmed: more than 0. Default: 5 s.
    ///
    /// The muxer has limits of its own for a guest that is silent, `deliver_timeout` (3 s) and
    /// `connect_timeout` (2 s) of its `Config`: what comes first counts.
    pub connect_timeout: Duration,
    /// How long a blocking call polls before its thread sleeps. A side that polls is reached
    /// without a system call, at the price of its processor's time; polling that finds nothing is
    /// tried less and less often. A read that drains a stream whose descriptor is polled looks for
    /// more in the same way, and a write that answers it looks for the next request, for 2 us at
    /// most. Zero: never polls. Default: 50 us.
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

/// Why a configuration was refused. As an [`io::Error`] it is `InvalidInput`.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum VsockInnerConfigError {
    /// The capacity of a direction is out of range.
    #[error("the capacity is {bytes} bytes; it must be 1 to {MAX_CAPACITY}, or unbounded")]
    Capacity {
        /// What was asked for.
        bytes: usize,
    },
    /// The time to connect is zero.
    #[error("`connect_timeout` is zero; it must be more")]
    ConnectTimeout,
}

impl From<VsockInnerConfigError> for io::Error {
    fn from(error: VsockInnerConfigError) -> Self {
        Self::new(io::ErrorKind::InvalidInput, error)
    }
}
