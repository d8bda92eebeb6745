// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use vsock_backend_api::VsockStream;

use crate::{StreamHandler, StreamSubscriber};

/// Whether to accept more connections.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum More {
    /// Continue.
    #[default]
    Accept,
    /// Pause for [`AcceptLimits::pause`](crate::AcceptLimits#structfield.pause), because there is
    /// no room for more now.
    Later,
}

/// Receives the connections of a backend or a listener.
///
/// Implemented for closures that take a stream, and for a shared [`StreamSubscriber`] whose state
/// has a default value, which adds every stream.
pub trait AcceptHandler {
    /// A connection has been accepted. The handler owns the stream; to refuse it, abort it. A
    /// backend's stream is non-blocking, a listener's is blocking;
    /// [`Streams::add`](crate::Streams::add) makes either non-blocking.
    fn accepted(&mut self, stream: Box<dyn VsockStream>) -> More;

    /// An accept has failed. The subscriber tries again, immediately or after a pause.
    fn failed(&mut self, error: io::Error) {
        drop(error);
    }
}

impl<F: FnMut(Box<dyn VsockStream>) -> More> AcceptHandler for F {
    fn accepted(&mut self, stream: Box<dyn VsockStream>) -> More {
        self(stream)
    }
}

impl<H: StreamHandler> AcceptHandler for Arc<Mutex<StreamSubscriber<H>>>
where
    H::State: Default,
{
    /// A stream that cannot be added is aborted, and counted in the counters of the streams.
    fn accepted(&mut self, stream: Box<dyn VsockStream>) -> More {
        // A panic in a handler is contained, so the state behind a poisoned lock is consistent.
        let mut streams = self.lock().unwrap_or_else(PoisonError::into_inner);
        match streams.streams().add(stream, H::State::default()) {
            Ok(_) => More::Accept,
            Err(refused) => {
                refused.stream.abort();
                More::Later
            }
        }
    }
}
