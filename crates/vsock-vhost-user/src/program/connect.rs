// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The command `connect`: connects standard input and output to a port of a guest.

mod dial;
mod relay;

use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use self::dial::{DialError, Dialler};
use self::relay::RelayError;
use super::args::Connect;

/// How long the device can take to answer, without `--wait`. The device's own timeouts end within
/// five seconds by default.
const PATIENCE: Duration = Duration::from_secs(10);

/// The exit code for a refused connection.
const REFUSED: u8 = 3;

/// An error of the `connect` command.
#[derive(Debug, Error)]
pub(crate) enum ConnectError {
    #[error("cannot connect to port {port} of the guest at {}", path.display())]
    Dial {
        path: PathBuf,
        port: u32,
        source: DialError,
    },
    #[error("the connection failed")]
    Relay(#[from] RelayError),
}

impl ConnectError {
    /// Returns the exit code.
    pub(crate) const fn code(&self) -> u8 {
        match self {
            Self::Dial {
                source: DialError::Refused,
                ..
            } => REFUSED,
            Self::Dial { .. } | Self::Relay(_) => 1,
        }
    }
}

/// Connects, and relays bytes until both directions have ended.
pub(crate) fn run(options: &Connect) -> Result<(), ConnectError> {
    let dialler = Dialler {
        path: &options.uds_path,
        port: options.port,
    };
    let dialled = match options.wait {
        Some(wait) => dialler.dial_until_answered(wait),
        None => dialler.dial(PATIENCE),
    };
    let connection = dialled.map_err(|source| ConnectError::Dial {
        path: options.uds_path.clone(),
        port: options.port,
        source,
    })?;
    Ok(relay::run(&connection)?)
}
