// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::fmt;
use std::mem::ManuallyDrop;
use std::net::Shutdown;
use std::os::fd::RawFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use vsock_backend_api::VsockStream;
use vsock_proto::Interest;

use crate::Token;

/// Something for the event loop to do, in order.
///
/// Each descriptor is registered once, by `Watch`, and unregistered once, by `Unwatch` or before
/// the stream of `Close` is dropped. Edge-triggered registration is best; level-triggered works
/// too: the muxer takes a watch back as soon as it sees an event that it cannot use.
#[derive(Debug)]
pub enum Action {
    /// Registers the descriptor for reading, with hang-ups (`EPOLLIN | EPOLLRDHUP`), and for
    /// writing (`EPOLLOUT`), as the interest says; or changes its registration. With neither it
    /// stays registered for hang-ups alone.
    Watch {
        /// What events of it belong to.
        token: Token,
        /// The descriptor.
        fd: RawFd,
        /// What to watch it for.
        interest: Interest,
    },
    /// Unregisters the descriptor.
    Unwatch {
        /// What it belonged to.
        token: Token,
        /// The descriptor.
        fd: RawFd,
    },
    /// Unregisters these descriptors, then drops the stream, which closes or aborts it.
    Close {
        /// What it was.
        token: Token,
        /// Its descriptors that are registered.
        fds: [Option<RawFd>; 2],
        /// The stream; dropping it closes it.
        stream: ClosingStream,
    },
}

/// A stream that is to be closed or aborted: dropping this does it.
///
/// Dropping it may wake the peer, so do that last: after the notification of the guest, and
/// whatever else others wait for.
///
/// A stream that panics then may panic again in its own drop: one of the panics passes through.
pub struct ClosingStream {
    /// `None` only within the drop.
    stream: Option<Box<dyn VsockStream>>,
    mode: CloseMode,
}

/// How a stream is closed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CloseMode {
    /// `shutdown(Write)` and a drop: the peer reads an end, whatever the guest has left unread.
    Shutdown,
    /// A drop: an end, unless the guest has left bytes unread.
    Drop,
    /// [`abort`](VsockStream::abort): the connection was broken off.
    Abort,
}

impl ClosingStream {
    /// The stream, and how it is closed when this is dropped.
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
        // A stream that knows no half-close, or has ended already, shows the end by its drop.
        let end = || drop(stream.shutdown(Shutdown::Write));
        if let Err(panic) = catch_unwind(AssertUnwindSafe(end)) {
            // Dropped while the panic unwinds, it would end the process by another.
            let dropped = catch_unwind(AssertUnwindSafe(|| drop(stream)));
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
