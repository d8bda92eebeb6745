// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What can go wrong with a loop, with adding a stream, and with a stream.

use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind};
use std::os::fd::RawFd;

use thiserror::Error;
use vsock_backend_api::VsockStream;

use crate::LimitError;

/// Why a loop could not be made, or cannot go on.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LoopError {
    /// A limit cannot be.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The epoll, the timer or the eventfd of a loop could not be made.
    #[error("a loop has no {what}; raise the limit of open descriptors")]
    Descriptor {
        /// Which of them.
        what: &'static str,
        /// What the kernel says.
        source: io::Error,
    },
    /// A listener did not become non-blocking.
    #[error("a listener stays blocking")]
    Blocking(#[source] io::Error),
    /// The event manager did not take the subscriber's descriptor, so nothing is served.
    #[error("the event manager refuses the descriptor of a subscriber")]
    #[cfg(feature = "event-manager")]
    Manager(#[source] event_manager::Error),
    /// The readiness of the streams could not be asked for.
    #[error("epoll does not say which streams are ready")]
    Wait(#[source] io::Error),
    /// The timer could not be set.
    #[error("the timer of a loop cannot be set")]
    Timer(#[source] io::Error),
    /// A descriptor is not watched.
    #[error("epoll does not watch descriptor {fd}")]
    Watch {
        /// The descriptor.
        fd: RawFd,
        /// What the kernel says.
        source: io::Error,
    },
    /// A descriptor is still watched, or its owner closed it before it was removed here.
    #[error("epoll does not let go of descriptor {fd}")]
    Unwatch {
        /// The descriptor.
        fd: RawFd,
        /// What the kernel says.
        source: io::Error,
    },
}

impl From<LoopError> for io::Error {
    fn from(error: LoopError) -> Self {
        let kind = match &error {
            LoopError::Limit(_) => ErrorKind::InvalidInput,
            #[cfg(feature = "event-manager")]
            LoopError::Manager(_) => ErrorKind::Other,
            LoopError::Descriptor { source, .. }
            | LoopError::Blocking(source)
            | LoopError::Wait(source)
            | LoopError::Timer(source)
            | LoopError::Watch { source, .. }
            | LoopError::Unwatch { source, .. } => source.kind(),
        };
        Self::new(kind, error)
    }
}

/// Whether the system lacks something that it may have again soon: descriptors, memory, or room for
/// what is watched. The numbers are the same on every architecture that Linux has (`errno(3)`,
/// asm-generic).
pub(crate) fn lacks_resource(error: &io::Error) -> bool {
    const ENOMEM: i32 = 12;
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    const ENOSPC: i32 = 28;
    const ENOBUFS: i32 = 105;
    // An error that says what was attempted has the system's own inside.
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(inner) = next {
        next = match inner.downcast_ref::<io::Error>() {
            Some(error) => match error.raw_os_error() {
                Some(ENOMEM | ENFILE | EMFILE | ENOSPC | ENOBUFS) => return true,
                _ => error
                    .get_ref()
                    .map(|inner| -> &(dyn Error + 'static) { inner }),
            },
            None => inner.source(),
        };
    }
    error.kind() == ErrorKind::OutOfMemory
}

/// Why a stream is not served.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Refusal {
    /// There are as many streams as
    /// [`StreamLimits::streams`](crate::StreamLimits#structfield.streams) allows.
    #[error("{limit} streams are served, which is the limit")]
    Full {
        /// The limit.
        limit: usize,
    },
    /// The loop is being drained, or was stopped.
    #[error("the loop ends, and takes no more streams")]
    Ending,
    /// The stream did not become non-blocking.
    #[error("the stream stays blocking")]
    Blocking(#[source] io::Error),
    /// The kernel did not take the stream's descriptor.
    #[error("epoll refuses the stream's descriptor")]
    Register(#[source] io::Error),
}

/// A stream that is not served, and why. It is given back.
///
/// A stream need not be `Sync`, so neither is this error, and `?` does not turn it into a
/// `Box<dyn Error + Send + Sync>`. `map_err(Refusal::from)?` does: it drops the stream, which
/// closes it, and keeps the [`Refusal`]. In a function that returns a `Refusal`, `?` alone is
/// enough.
#[derive(Error)]
#[error("a stream cannot be added")]
pub struct AddError {
    /// Why.
    #[source]
    pub refusal: Refusal,
    /// The stream, as it was but for its mode.
    pub stream: Box<dyn VsockStream>,
}

impl From<AddError> for Refusal {
    /// Drops the stream.
    fn from(error: AddError) -> Self {
        error.refusal
    }
}

impl fmt::Debug for AddError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AddError")
            .field("refusal", &self.refusal)
            .finish_non_exhaustive()
    }
}

/// What has become of a stream, when it is not its regular end.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StreamFailure {
    /// Reading failed: a reset, or another error of the stream.
    #[error("reading a stream")]
    Read(#[source] io::Error),
    /// Writing failed. Bytes that the peer had sent before can still be read.
    #[error("writing a stream")]
    Write(#[source] io::Error),
    /// The peer is gone, after it had ended its direction.
    #[error("the peer of a stream is gone")]
    PeerGone,
    /// No byte has moved for as long as
    /// [`StreamLimits::idle`](crate::StreamLimits#structfield.idle) allows.
    #[error("a stream was idle for too long")]
    Idle,
    /// The kernel did not change what it watches of the stream.
    #[error("epoll refuses a change of the stream's interest")]
    Register(#[source] io::Error),
}
