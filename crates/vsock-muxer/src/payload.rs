// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Between the core's idea of bytes and that of streams and guests.

use std::io::{self, ErrorKind, IoSlice};

use vsock_backend_api::{VsockMessages, VsockStream};
use vsock_proto::{Chunk, MessageFlags, Payload, Progress};

use crate::guest::GuestPayload;

/// The payload of a packet, and the stream it goes to.
pub(crate) struct ToStream<'a> {
    pub(crate) payload: &'a mut dyn GuestPayload,
    pub(crate) stream: Option<&'a mut dyn VsockStream>,
}

impl Payload for ToStream<'_> {
    fn forward(&mut self, message: Option<MessageFlags>) -> Progress {
        // A connection that takes payload has a stream, and one of messages a stream of messages.
        let Some(stream) = self.stream.as_deref_mut() else {
            return Progress::Closed;
        };
        match message {
            None => self.payload.write_to(stream),
            Some(flags) => stream.messages().map_or(Progress::Failed, |messages| {
                self.payload.send_to(messages, flags)
            }),
        }
    }

    fn copy_to(&mut self, dst: &mut [u8]) {
        self.payload.copy_to(dst);
    }
}

/// Reads; a call that was interrupted is repeated.
pub(crate) fn read(stream: &mut dyn VsockStream, buffer: &mut [u8]) -> Result<usize, ErrorKind> {
    loop {
        match stream.read(buffer).map_err(|error| error.kind()) {
            Err(ErrorKind::Interrupted) => {}
            result => return result,
        }
    }
}

/// Writes what waits to the stream, in one call.
pub(crate) fn write(stream: &mut dyn VsockStream, chunk: &Chunk<'_>) -> Progress {
    if let Some(flags) = chunk.message {
        let pieces = [IoSlice::new(chunk.first), IoSlice::new(chunk.second)];
        return stream.messages().map_or(Progress::Failed, |messages| {
            send_message(messages, &pieces, flags)
        });
    }
    progress(chunk.len(), || {
        if chunk.second.is_empty() {
            stream.write(chunk.first)
        } else {
            stream.write_vectored(&[IoSlice::new(chunk.first), IoSlice::new(chunk.second)])
        }
    })
}

/// Sends a message to a stream, in one call that is repeated if interrupted: for implementations of
/// [`GuestPayload::send_to`].
pub fn send_message(
    stream: &mut dyn VsockMessages,
    message: &[IoSlice<'_>],
    flags: MessageFlags,
) -> Progress {
    let len = message.iter().map(|piece| piece.len()).sum();
    loop {
        return match stream.send_message(message, flags.ends_record()) {
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

/// What came of a write of `offered` bytes; one that was interrupted is repeated. A stream that counts more
/// than it was offered is broken: what it has taken is unknown.
fn progress(offered: usize, mut write: impl FnMut() -> io::Result<usize>) -> Progress {
    loop {
        return match write() {
            Ok(taken) if taken > offered => Progress::Failed,
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
