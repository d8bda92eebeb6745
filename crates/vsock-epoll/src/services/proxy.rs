// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::fmt;

use vsock_backend_api::VsockStream;

use super::PIECE;
use crate::{AddError, After, StreamFailure, StreamHandler, StreamId, Streams};

/// Copies between two streams, in both directions, each of which ends by itself.
///
/// What one side's peer does not take waits in that side's backlog, and then in the other side's
/// transport. An end is passed on after the bytes. If one side fails, what it had sent before still
/// reaches the other one.
pub struct Proxy {
    buf: Vec<u8>,
}

impl Proxy {
    /// A proxy.
    #[must_use]
    pub fn new() -> Self {
        Self {
            buf: vec![0; PIECE],
        }
    }

    /// Connects two streams with each other.
    ///
    /// # Errors
    ///
    /// [`AddError`], with the stream that could not be added; the other one is closed.
    pub fn join(
        streams: &mut Streams<Option<StreamId>>,
        left: Box<dyn VsockStream>,
        right: Box<dyn VsockStream>,
    ) -> Result<(StreamId, StreamId), AddError> {
        let left = streams.add(left, None)?;
        let right = streams.add(right, Some(left)).inspect_err(|_| {
            streams.close(left);
        })?;
        if let Some(peer) = streams.state_mut(left) {
            *peer = Some(right);
        }
        Ok((left, right))
    }

    fn other(streams: &Streams<Option<StreamId>>, id: StreamId) -> Option<StreamId> {
        streams.state(id).copied().flatten()
    }
}

impl Default for Proxy {
    fn default() -> Self {
        Self::new()
    }
}

impl StreamHandler for Proxy {
    /// The other one of the two.
    type State = Option<StreamId>;

    fn readable(&mut self, streams: &mut Streams<Option<StreamId>>, id: StreamId) {
        let Some(to) = Self::other(streams, id) else {
            return streams.pause(id);
        };
        loop {
            let room = streams.room(to).min(self.buf.len());
            if room == 0 {
                streams.await_space(to);
                return streams.pause(id);
            }
            let read = streams.read(id, &mut self.buf[..room]);
            if read == 0 {
                return;
            }
            streams.write(to, &self.buf[..read]);
        }
    }

    fn writable(&mut self, streams: &mut Streams<Option<StreamId>>, id: StreamId) {
        if let Some(from) = Self::other(streams, id) {
            streams.resume(from);
        }
    }

    fn ended(&mut self, streams: &mut Streams<Option<StreamId>>, id: StreamId) {
        if let Some(to) = Self::other(streams, id) {
            streams.finish(to);
        }
    }

    fn failed(
        &mut self,
        streams: &mut Streams<Option<StreamId>>,
        id: StreamId,
        failure: StreamFailure,
    ) -> After {
        if let (StreamFailure::Write(_), Some(from)) = (failure, Self::other(streams, id)) {
            // Nothing more can be delivered here, so nothing more is taken there.
            streams.stop_reading(from);
            return After::ReadOn;
        }
        After::Close
    }

    fn closed(
        &mut self,
        streams: &mut Streams<Option<StreamId>>,
        _id: StreamId,
        other: Option<StreamId>,
    ) {
        // The other one gets what is still on its way to it. One that has ended by itself does already.
        if let Some(other) = other {
            streams.finish_and_close(other);
        }
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").finish_non_exhaustive()
    }
}
