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
///
/// Here what the guest opens at port 1024 goes to a Unix socket of the host:
///
/// ```
/// use std::os::unix::net::UnixStream;
/// use std::sync::{Arc, Mutex};
///
/// use vsock_epoll::services::Proxy;
/// use vsock_epoll::{AcceptLimits, ListenerSubscriber, More, StreamLimits, StreamSubscriber, VsockStream};
/// use vsock_inner::VsockInnerBackend;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let backend = VsockInnerBackend::new()?;
/// let proxy = StreamSubscriber::new(Proxy::new(), StreamLimits::default())?;
/// let proxy = Arc::new(Mutex::new(proxy));
/// let shared = Arc::clone(&proxy);
/// let connect = move |guest: Box<dyn VsockStream>| {
///     // This waits while the service's backlog is full; a loop that must not wait connects elsewhere.
///     let Ok(service) = UnixStream::connect("/run/service.sock") else {
///         guest.abort(); // the guest gets a reset
///         return More::Accept;
///     };
///     let mut proxy = shared.lock().unwrap();
///     match Proxy::join(proxy.streams(), guest, Box::new(service)) {
///         Ok(_) => More::Accept,
///         Err(_) => More::Later, // both streams are closed; pause
///     }
/// };
/// let listener = backend.listen(1024)?;
/// let acceptor = ListenerSubscriber::new(listener, connect, AcceptLimits::default())?;
/// // Both `acceptor` and `proxy` go to the event loop.
/// # Ok(())
/// # }
/// ```
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
        // The other one gets what is still on its way to it. One that has ended by itself does
        // already.
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
