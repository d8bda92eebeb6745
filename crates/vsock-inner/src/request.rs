// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The port that a connection was requested for, which the device's end knows out of band.
//!
//! The command line stands in the pipe all the same, so that the descriptor is readable and a
//! device that knows nothing of this reads it as ever. One that asks for the port gets it, and the
//! line is gone. Its confirmation releases the opener, as that in text does, which never comes into
//! the pipe either. So there is one way to wait, whichever way the device has gone.

use std::io::{self, ErrorKind, Read};
use std::mem;

use crate::connection::Addresses;
use crate::reader::VsockInnerReader;
use crate::writer::VsockInnerWriter;

/// No command is longer: `CONNECT `, ten digits, newline.
const MAX_COMMAND: usize = 19;

/// What a device's end knows of the port that was asked for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Request {
    /// Nothing, or nothing any more.
    #[default]
    None,
    /// The pipe begins with the command for this port.
    Offered(u32),
    /// The device has taken the port, and owes a confirmation.
    Taken,
}

impl Request {
    /// Asks for `port`, before the device has its end; what its end knows of it then.
    pub(crate) fn ask(
        port: u32,
        opener: &mut VsockInnerWriter,
        device: &mut VsockInnerWriter,
    ) -> Self {
        opener.request(command(port).as_bytes());
        device.owe_answer();
        Self::Offered(port)
    }

    /// Takes the port that was asked for, and the command out of the pipe; nothing, if there is
    /// none or the device has begun to read.
    pub(crate) fn take(&mut self, reader: &mut VsockInnerReader) -> Option<u32> {
        let Self::Offered(port) = *self else {
            return None;
        };
        *self = Self::None;
        let command = command(port);
        let mut bytes = [0; MAX_COMMAND];
        let bytes = bytes.get_mut(..command.len())?;
        // All of it came before the device had the stream: nothing here waits.
        // What looks like it further on is the opener's.
        if reader.has_begun() || reader.read_exact(bytes).is_err() {
            return None;
        }
        *self = Self::Taken;
        Some(port)
    }

    /// Completes the opener's wait; the opener then knows the addresses.
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
