// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Calls of stream methods, with their results converted.

use std::io::{ErrorKind, IoSlice};

use vsock_backend_api::{Record, VsockMessages, VsockStream};
use vsock_proto::{MessageFlags, Progress};

/// Reads from the stream. Repeats an interrupted call.
pub(crate) fn read(stream: &mut dyn VsockStream, buffer: &mut [u8]) -> Result<usize, ErrorKind> {
    loop {
        match stream.read(buffer).map_err(|error| error.kind()) {
            Err(ErrorKind::Interrupted) => {}
            result => return result,
        }
    }
}

/// Writes both parts in one call. A stream that reports more bytes than it was offered is treated
/// as broken, because it is unknown what it has accepted.
pub(crate) fn write_bytes(stream: &mut dyn VsockStream, first: &[u8], second: &[u8]) -> Progress {
    loop {
        let written = if second.is_empty() {
            stream.write(first)
        } else {
            stream.write_vectored(&[IoSlice::new(first), IoSlice::new(second)])
        };
        return match written {
            Ok(taken) if taken > first.len() + second.len() => Progress::Failed,
            Ok(taken) => Progress::Done(taken),
            Err(error) => match error.kind() {
                ErrorKind::Interrupted => continue,
                ErrorKind::WouldBlock => Progress::Pending,
                ErrorKind::BrokenPipe => Progress::Closed,
                _ => Progress::Failed,
            },
        };
    }
}

/// Sends a message to a stream in one call, which is repeated if it is interrupted. Intended for
/// implementations of [`GuestPayload::send_to`](crate::GuestPayload::send_to).
pub fn send_message(
    stream: &mut dyn VsockMessages,
    message: &[IoSlice<'_>],
    flags: MessageFlags,
) -> Progress {
    let len = message.iter().map(|piece| piece.len()).sum();
    let record = if flags.ends_record() {
        Record::Ends
    } else {
        Record::Continues
    };
    loop {
        return match stream.send_message(message, record) {
            Ok(()) => Progress::Done(len),
            Err(error) => match error.kind() {
                ErrorKind::Interrupted => continue,
                ErrorKind::WouldBlock => Progress::Pending,
                ErrorKind::BrokenPipe => Progress::Closed,
                ErrorKind::InvalidInput => Progress::TooLong,
                _ => Progress::Failed,
            },
        };
    }
}
