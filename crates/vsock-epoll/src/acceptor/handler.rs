// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use vsock_backend_api::VsockStream;

use crate::{StreamHandler, StreamSubscriber};

/// Whether more connections are to be accepted.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum More {
    /// Go on.
    #[default]
    Accept,
    /// Pauses for [`AcceptLimits::pause`](crate::AcceptLimits#structfield.pause): there is no room
    /// for more now.
    Later,
}

/// What is done with the connections of a backend or a listener.
///
/// A closure that takes a stream is one. So is a [`StreamSubscriber`] that is shared, if its states
/// have a default: it serves every stream.
pub trait AcceptHandler {
    /// A connection was accepted. The stream is the handler's; to refuse it is to abort it. A
    /// backend's stream is non-blocking, a listener's is blocking;
    /// [`Streams::add`](crate::Streams::add) makes either non-blocking.
    fn accepted(&mut self, stream: Box<dyn VsockStream>) -> More;

    /// An accept has failed. The subscriber tries the next one, immediately or after a pause.
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
    /// What is refused is aborted, and counted by the streams.
    fn accepted(&mut self, stream: Box<dyn VsockStream>) -> More {
        // A handler that panics is contained, so nothing is torn.
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
