// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The requested guest port of a connection, which the device end learns out of band.
//!
//! The pipe contains the command line as well. It makes the descriptor readable, and a device that
//! is unaware of this interface reads it as usual. If a device takes the port out of band, the line
//! is removed from the pipe. The confirmation, whether out of band or as text, never enters the
//! opposite pipe; it only releases the opener. So the opener waits in the same way in both cases.

use std::io::{self, ErrorKind, Read};
use std::mem;

use crate::connection::Addresses;
use crate::reader::VsockInnerReader;
use crate::writer::VsockInnerWriter;

/// The longest command: `CONNECT `, ten digits, newline.
const MAX_COMMAND: usize = 19;

/// What the device end knows of the requested port.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Request {
    /// No port was requested, or it is no longer available.
    #[default]
    None,
    /// The pipe begins with the command for this port.
    Offered(u32),
    /// The device has taken the port and must confirm.
    Taken,
}

impl Request {
    /// Requests `port`, before the device receives its end. Returns the state for the device end.
    pub(crate) fn ask(
        port: u32,
        opener: &mut VsockInnerWriter,
        device: &mut VsockInnerWriter,
    ) -> Self {
        opener.request(command(port).as_bytes());
        device.set_answer_pending();
        Self::Offered(port)
    }

    /// Takes the requested port, and removes the command from the pipe. Returns `None` if no port
    /// was requested, or if the device has begun to read.
    pub(crate) fn take(&mut self, reader: &mut VsockInnerReader) -> Option<u32> {
        let Self::Offered(port) = *self else {
            return None;
        };
        *self = Self::None;
        let command = command(port);
        let mut bytes = [0; MAX_COMMAND];
        let bytes = bytes.get_mut(..command.len())?;
        // The whole command was queued before the device received the stream, so this never waits.
        // If reading has begun, the command is gone; similar bytes further on are the opener's.
        if reader.has_begun() || reader.read_exact(bytes).is_err() {
            return None;
        }
        *self = Self::Taken;
        Some(port)
    }

    /// Releases the opener, which then knows the addresses.
    pub(crate) fn confirm(
        &mut self,
        writer: &mut VsockInnerWriter,
        addresses: Option<Addresses>,
    ) -> io::Result<()> {
        if mem::take(self) != Self::Taken {
            return Err(ErrorKind::Unsupported.into());
        }
        if let Some(addresses) = addresses {
            writer.half.connection.set_addresses(addresses);
        }
        writer.confirm()
    }
}

/// The command for a port.
fn command(port: u32) -> String {
    format!("CONNECT {port}\n")
}
