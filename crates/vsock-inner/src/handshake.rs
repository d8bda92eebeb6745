// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Waiting for the muxer to confirm a connection to a guest port.

use std::io::{self, ErrorKind};
use std::time::Duration;

use thiserror::Error;

use crate::connection::ConnectState;
use crate::spin::Pace;
use crate::stream::VsockInnerStream;
use crate::wait::{Deadline, Waiter};
use crate::word::Position;

/// Why a connection to a guest port failed.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The muxer closed the connection without confirming it: `ConnectionRefused`.
    #[error("cannot connect to guest port {port}: refused")]
    Refused {
        /// The guest's port.
        port: u32,
    },
    /// No answer arrived in time: `TimedOut`.
    #[error("cannot connect to guest port {port}: no answer within {timeout:?}")]
    TimedOut {
        /// The guest's port.
        port: u32,
        /// The timeout of the call, or the configured one.
        timeout: Duration,
    },
    /// The timeout is zero: `InvalidInput`.
    #[error(
        "cannot connect to guest port {port} with a timeout of zero: use `start_connect_to` instead"
    )]
    ZeroTimeout {
        /// The guest's port.
        port: u32,
    },
    /// The answer was not `OK <number>\n`: `InvalidData`.
    #[error("cannot connect to guest port {port}: the muxer's answer is not `OK <number>`")]
    BadAnswer {
        /// The guest's port.
        port: u32,
    },
}

impl From<HandshakeError> for io::Error {
    fn from(error: HandshakeError) -> Self {
        let kind = match error {
            HandshakeError::Refused { .. } => ErrorKind::ConnectionRefused,
            HandshakeError::TimedOut { .. } => ErrorKind::TimedOut,
            HandshakeError::ZeroTimeout { .. } => ErrorKind::InvalidInput,
            HandshakeError::BadAnswer { .. } => ErrorKind::InvalidData,
        };
        Self::new(kind, error)
    }
}

/// Waits until the device has answered the request for `port`.
pub(crate) fn wait(
    stream: &VsockInnerStream,
    port: u32,
    timeout: Duration,
    spin_budget: Duration,
) -> Result<(), HandshakeError> {
    let mut waiter = Waiter::new(spin_budget, Some(timeout));
    let half = &stream.writer.half;
    let doorbell = &half.outgoing().space;
    // While connecting, no position counts as reached. Once connected, even the start does.
    let waited = waiter.wait(
        doorbell,
        Position::START,
        Pace::Hurry,
        &mut Deadline::default(),
    );
    match (half.connect_state(), waited) {
        (ConnectState::Connected, _) => Ok(()),
        (ConnectState::BadAnswer, _) => Err(HandshakeError::BadAnswer { port }),
        (ConnectState::Connecting, Err(_)) => Err(HandshakeError::TimedOut { port, timeout }),
        (ConnectState::Refused | ConnectState::Connecting, _) => {
            Err(HandshakeError::Refused { port })
        }
    }
}
