// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::fmt;
use std::mem::ManuallyDrop;
use std::net::Shutdown;
use std::os::fd::RawFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use vsock_backend_api::VsockStream;

use crate::Token;

/// Something for the driver to do on its event loop, in order.
///
/// Each descriptor is registered once, by `Watch`, and unregistered once, by `Unwatch` or before the
/// stream of `Close` is dropped. Edge-triggered registration is best; level-triggered works too: the
/// muxer takes a watch back as soon as it sees an event that it cannot use.
#[derive(Debug)]
pub enum Action {
    /// Registers the descriptor for reading, with hang-ups (`EPOLLIN | EPOLLRDHUP`), and for writing
    /// (`EPOLLOUT`), as said; or changes its registration. With neither it stays registered for
    /// hang-ups alone.
    Watch {
        /// What events of it belong to.
        token: Token,
        /// The descriptor.
        fd: RawFd,
        /// Whether to watch until it is readable.
        read: bool,
        /// Whether to watch until it is writable.
        write: bool,
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
        stream: Closing,
    },
}

/// A stream that is to be closed or aborted: dropping this does it.
///
/// It may wake who has the other end, so a driver drops it behind what others wait for, such as the
/// notification of the guest.
///
/// A stream that panics in that may panic in its drop as well: one of the panics passes through.
pub struct Closing {
    /// Is there until the drop.
    stream: Option<Box<dyn VsockStream>>,
    last: Last,
}

/// The last that is done to a stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Last {
    /// It ends what was written to it, whatever else is left in it.
    End,
    /// It is dropped: an end, unless the guest has left bytes of the host's.
    Drop,
    /// It is aborted: the guest has broken the connection off, or something else has.
    Abort,
}

impl Closing {
    /// Dropped with an end of what is written, if it is `orderly`; else aborted, which is a reset where
    /// the stream knows one.
    #[must_use]
    pub fn new(stream: Box<dyn VsockStream>, orderly: bool) -> Self {
        Self::by(stream, if orderly { Last::End } else { Last::Abort })
    }

    pub(crate) const fn by(stream: Box<dyn VsockStream>, last: Last) -> Self {
        let stream = Some(stream);
        Self { stream, last }
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        let Some(mut stream) = self.stream.take() else {
            return;
        };
        match self.last {
            Last::End => {}
            Last::Drop => return,
            Last::Abort => return stream.abort(),
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

impl fmt::Debug for Closing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Closing")
            .field("fd", &self.stream.as_ref().map(|stream| stream.as_raw_fd()))
            .field("last", &self.last)
            .finish_non_exhaustive()
    }
}
