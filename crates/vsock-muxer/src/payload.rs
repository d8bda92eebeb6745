// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Adapters between the connection's view of payload and that of streams and guests.

use std::io::IoSlice;

use vsock_backend_api::VsockStream;
use vsock_proto::{Chunk, MessageFlags, Payload, Progress};

use crate::guest::GuestPayload;
use crate::stream_calls::{send_message, write_bytes};

/// The payload of a packet, and the stream that receives it.
pub(crate) struct ToStream<'a> {
    pub(crate) payload: &'a mut dyn GuestPayload,
    pub(crate) stream: Option<&'a mut dyn VsockStream>,
    /// When to offer the payload to the stream.
    pub(crate) offer: Offer,
}

/// When the payload of a packet is offered to its stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Offer {
    /// Before the next packet is handled.
    Now,
    /// Together with the payload of later packets. Until then, the payload is kept in the backlog
    /// as if the stream had refused it.
    WithOthers,
}

impl Payload for ToStream<'_> {
    fn forward(&mut self, message: Option<MessageFlags>) -> Progress {
        // A connection that takes payload has a stream, and one that takes messages has a stream of
        // messages. The fallbacks only avoid a panic.
        let Some(stream) = self.stream.as_deref_mut() else {
            return Progress::Closed;
        };
        match message {
            None if self.offer == Offer::WithOthers => Progress::Pending,
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

/// Writes waiting bytes to the stream, in one call.
pub(crate) fn write(stream: &mut dyn VsockStream, chunk: &Chunk<'_>) -> Progress {
    if let Some(flags) = chunk.message {
        let pieces = [IoSlice::new(chunk.first), IoSlice::new(chunk.second)];
        return stream.messages().map_or(Progress::Failed, |messages| {
            send_message(messages, &pieces, flags)
        });
    }
    write_bytes(stream, chunk.first, chunk.second)
}
