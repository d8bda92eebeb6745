// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Between the core's idea of bytes and that of streams and guests.

use std::io::{self, ErrorKind, IoSlice};

use vsock_backend_api::VsockStream;
use vsock_proto::{Chunk, MessageFlags, Payload, Progress};

use crate::GuestPayload;

/// The payload of a packet, and the stream it goes to.
pub(crate) struct ToStream<'a> {
    pub(crate) payload: &'a mut dyn GuestPayload,
    pub(crate) stream: Option<&'a mut dyn VsockStream>,
}

impl Payload for ToStream<'_> {
    fn forward(&mut self, _message: Option<MessageFlags>) -> Progress {
        // A connection that takes payload has a stream.
        self.stream
            .as_deref_mut()
            .map_or(Progress::Closed, |stream| self.payload.write_to(stream))
    }

    fn copy_to(&mut self, dst: &mut [u8]) {
        self.payload.copy_to(dst);
    }
}

/// Writes what waits to the stream, in one call.
pub(crate) fn write(stream: &mut dyn VsockStream, chunk: &Chunk<'_>) -> Progress {
    progress(|| {
        if chunk.second.is_empty() {
            stream.write(chunk.first)
        } else {
            stream.write_vectored(&[IoSlice::new(chunk.first), IoSlice::new(chunk.second)])
        }
    })
}

/// What came of a write; one that was interrupted is repeated.
fn progress(mut write: impl FnMut() -> io::Result<usize>) -> Progress {
    loop {
        return match write() {
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
