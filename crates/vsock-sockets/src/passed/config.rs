// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io::{self, ErrorKind};
use std::ops::RangeInclusive;
use std::time::Duration;

use thiserror::Error;

/// Limits for the host processes that pass descriptors.
///
/// ```
/// use vsock_sockets::PassFdConfig;
///
/// let config = PassFdConfig::default().max_streams(64);
/// assert_eq!(config.max_streams, 64);
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct PassFdConfig {
    /// The maximum number of passed descriptors at one time: 1 to 65,536, default 1,024. Further
    /// ones are refused. Each uses one or two threads, three or four descriptors, and up to 64 KiB
    /// for each direction while bytes wait in it.
    pub max_streams: usize,
    /// The maximum number of clients that have not sent their command yet: 1 to 65,536, default
    /// 1,024. A further client is accepted, and the oldest one is refused. Each uses one
    /// descriptor.
    pub max_waiting: usize,
    /// How long a client can take to send its command before it is refused: 1 ms to one day,
    /// default 5 s.
    pub command_timeout: Duration,
}

impl Default for PassFdConfig {
    fn default() -> Self {
        Self {
            max_streams: 1024,
            max_waiting: 1024,
            command_timeout: Duration::from_secs(5),
        }
    }
}

/// The error for a field that is out of range.
#[derive(Clone, Copy, Debug, Error)]
enum ConfigError {
    #[error(
        "invalid value for `{field}`: expected {} to {}, found {value}",
        range.start(),
        range.end()
    )]
    Count {
        field: &'static str,
        value: usize,
        range: &'static RangeInclusive<usize>,
    },
    #[error("invalid value for `command_timeout`: expected 1 ms to one day, found {0:?}")]
    Timeout(Duration),
}

const COUNTS: RangeInclusive<usize> = 1..=65_536;
const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(86_400);

impl PassFdConfig {
    /// Sets [`max_streams`](Self::max_streams).
    #[must_use]
    pub const fn max_streams(mut self, max_streams: usize) -> Self {
        self.max_streams = max_streams;
        self
    }

    /// Sets [`max_waiting`](Self::max_waiting).
    #[must_use]
    pub const fn max_waiting(mut self, max_waiting: usize) -> Self {
        self.max_waiting = max_waiting;
        self
    }

    /// Sets [`command_timeout`](Self::command_timeout).
    #[must_use]
    pub const fn command_timeout(mut self, command_timeout: Duration) -> Self {
        self.command_timeout = command_timeout;
        self
    }

    /// Checks the ranges of all fields.
    ///
    /// # Errors
    ///
    /// `InvalidInput`: a field is out of range. The message names the field.
    pub(super) fn check(&self) -> io::Result<()> {
        let invalid = |error| Err(io::Error::new(ErrorKind::InvalidInput, error));
        for (field, value) in [
            ("max_streams", self.max_streams),
            ("max_waiting", self.max_waiting),
        ] {
            let range = &COUNTS;
            if !range.contains(&value) {
                return invalid(ConfigError::Count {
                    field,
                    value,
                    range,
                });
            }
        }
        if !TIMEOUTS.contains(&self.command_timeout) {
            return invalid(ConfigError::Timeout(self.command_timeout));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_names_the_field_and_its_value() {
        let default = PassFdConfig::default();
        default.check().unwrap();
        for (config, named) in [
            (
                default.max_streams(0),
                "invalid value for `max_streams`: expected 1 to 65536, found 0",
            ),
            (
                default.max_waiting(65_537),
                "invalid value for `max_waiting`: expected 1 to 65536, found 65537",
            ),
            (
                default.command_timeout(Duration::ZERO),
                "invalid value for `command_timeout`: expected 1 ms to one day, found 0ns",
            ),
        ] {
            let error = config.check().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().starts_with(named), "{error}");
        }
    }
}
