// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::fmt;
use std::mem::ManuallyDrop;
use std::net::Shutdown;
use std::os::fd::RawFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use vsock_backend_api::VsockStream;
use vsock_proto::Interest;

use crate::Token;

/// An action for the event loop. Actions must be executed in order.
///
/// Each descriptor is registered once, by `Watch`, and unregistered once, by `Unwatch` or before
/// the stream of `Close` is dropped. Edge-triggered registration is best. Level-triggered
/// registration works too, because the muxer withdraws a watch as soon as it sees an event that it
/// cannot use.
#[derive(Debug)]
pub enum Action {
    /// Registers the descriptor, or changes its registration: for reading and hang-ups (`EPOLLIN |
    /// EPOLLRDHUP`) and for writing (`EPOLLOUT`), as `interest` says. With neither, it stays
    /// registered for hang-ups only.
    Watch {
        /// The token to pass with events of the descriptor.
        token: Token,
        /// The descriptor.
        fd: RawFd,
        /// The events to watch for.
        interest: Interest,
    },
    /// Unregisters the descriptor.
    Unwatch {
        /// The descriptor's token.
        token: Token,
        /// The descriptor.
        fd: RawFd,
    },
    /// Unregisters these descriptors, then drops the stream, which closes or aborts it.
    Close {
        /// The stream's token.
        token: Token,
        /// The stream's registered descriptors.
        fds: [Option<RawFd>; 2],
        /// The stream, which is closed by dropping this.
        stream: ClosingStream,
    },
}

/// A stream that is closed or aborted when this is dropped.
///
/// Dropping it can wake the peer, so do it last, after notifying the guest and any other thread
/// that waits for something.
///
/// If the stream panics when it is closed and again when it is dropped, only one of the panics
/// propagates.
pub struct ClosingStream {
    /// `None` only during the drop.
    stream: Option<Box<dyn VsockStream>>,
    mode: CloseMode,
}

/// How a stream is closed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CloseMode {
    /// `shutdown(Write)` and a drop: the peer reads the end of the stream even if the guest has
    /// left bytes unread.
    Shutdown,
    /// A drop: the peer reads the end of the stream unless the guest has left bytes unread.
    Drop,
    /// [`abort`](VsockStream::abort): the peer sees a broken connection.
    Abort,
}

impl ClosingStream {
    /// Wraps a stream that is to be closed in this way.
    #[must_use]
    pub const fn new(stream: Box<dyn VsockStream>, mode: CloseMode) -> Self {
        let stream = Some(stream);
        Self { stream, mode }
    }
}

impl Drop for ClosingStream {
    fn drop(&mut self) {
        let Some(mut stream) = self.stream.take() else {
            return;
        };
        match self.mode {
            CloseMode::Shutdown => {}
            CloseMode::Drop => return,
            CloseMode::Abort => return stream.abort(),
        }
        // A stream that does not support half-close, or has already ended, shows its end when it is
        // dropped.
        let end = || drop(stream.shutdown(Shutdown::Write));
        if let Err(panic) = catch_unwind(AssertUnwindSafe(end)) {
            // If the stream's drop also panicked while this panic unwinds, the process would abort.
            let dropped = catch_unwind(AssertUnwindSafe(|| drop(stream)));
            // The payload of that panic can also panic in its drop: its own payload is left alone.
            let dropped = catch_unwind(AssertUnwindSafe(|| drop(dropped)));
            let _left_alone = ManuallyDrop::new(dropped);
            resume_unwind(panic);
        }
    }
}

impl fmt::Debug for ClosingStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClosingStream")
            .field("fd", &self.stream.as_ref().map(|stream| stream.as_raw_fd()))
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}
