// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::fmt;

use vsock_backend_api::VsockStream;

use super::PIECE;
use crate::{AddError, After, StreamFailure, StreamHandler, StreamId, Streams};

/// Copies between two streams, in both directions. Each direction ends separately.
///
/// Data that one peer does not take waits in that stream's backlog, then in the other stream's
/// transport. The end of a direction is passed on after its data. If one side fails, data that it
/// sent before still reaches the other.
///
/// This example forwards port 1024 of the host to a Unix socket:
///
/// ```
/// use std::os::unix::net::UnixStream;
/// use std::sync::{Arc, Mutex};
///
/// use vsock_epoll::services::Proxy;
/// use vsock_epoll::{AcceptLimits, ListenerSubscriber, More, StreamLimits};
/// use vsock_epoll::{StreamSubscriber, VsockStream};
/// use vsock_inner::VsockInnerBackend;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let backend = VsockInnerBackend::new()?;
/// let proxy = StreamSubscriber::new(Proxy::new(), StreamLimits::default())?;
/// let proxy = Arc::new(Mutex::new(proxy));
/// let shared = Arc::clone(&proxy);
/// let connect = move |guest: Box<dyn VsockStream>| {
///     // This blocks while the service's backlog is full. If the loop must not block, connect on
///     // another thread.
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
/// // Add both `acceptor` and `proxy` to the event loop.
/// # Ok(())
/// # }
/// ```
pub struct Proxy {
    buf: Vec<u8>,
}

impl Proxy {
    /// Creates a proxy.
    #[must_use]
    pub fn new() -> Self {
        Self {
            buf: vec![0; PIECE],
        }
    }

    /// Adds two streams, and connects them with each other.
    ///
    /// # Errors
    ///
    /// [`AddError`], with the stream that could not be added. The other one is closed.
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
    /// The other stream of the pair.
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
            // Nothing more can be delivered here, so do not accept any more at the other side.
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
        // The other stream still gets what is on its way to it. If its direction ended by itself,
        // it does so already.
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
