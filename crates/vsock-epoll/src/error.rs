// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Errors of a loop, of adding a stream, and of a stream.

use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind};
use std::os::fd::RawFd;

use thiserror::Error;
use vsock_backend_api::VsockStream;

use crate::LimitError;

/// Why a loop could not be created, or a call of it failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LoopError {
    /// A limit is out of range.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// An epoll, timer or eventfd could not be created.
    #[error("cannot create the loop's {what}; raise the limit on open descriptors")]
    Descriptor {
        /// The kind of descriptor.
        what: &'static str,
        /// The kernel's error.
        source: io::Error,
    },
    /// A listener could not be made non-blocking.
    #[error("cannot make the listener non-blocking")]
    Blocking(#[source] io::Error),
    /// The event manager rejected the subscriber's descriptor, so nothing is served.
    #[error("the event manager rejected the subscriber's descriptor")]
    #[cfg(feature = "event-manager")]
    Manager(#[source] event_manager::Error),
    /// Polling for ready descriptors failed.
    #[error("cannot poll for ready descriptors")]
    Wait(#[source] io::Error),
    /// The timer could not be set.
    #[error("cannot set the loop's timer")]
    Timer(#[source] io::Error),
    /// A descriptor could not be added to the epoll, or changed there.
    #[error("cannot watch descriptor {fd}")]
    Watch {
        /// The descriptor.
        fd: RawFd,
        /// The kernel's error.
        source: io::Error,
    },
    /// A descriptor could not be removed from the epoll. Probably its owner closed it too early.
    #[error("cannot stop watching descriptor {fd}")]
    Unwatch {
        /// The descriptor.
        fd: RawFd,
        /// The kernel's error.
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

/// Whether the system lacks a resource that may become available again: descriptors, memory, or
/// space for watched descriptors. The numbers are the same on every architecture of Linux
/// (`errno(3)`, asm-generic).
pub(crate) fn lacks_resource(error: &io::Error) -> bool {
    const ENOMEM: i32 = 12;
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    const ENOSPC: i32 = 28;
    const ENOBUFS: i32 = 105;
    // The system's error may be wrapped in one that says what was attempted.
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

/// Why a stream was not added.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The number of streams has reached
    /// [`StreamLimits::streams`](crate::StreamLimits#structfield.streams).
    #[error("the limit of {limit} streams is reached")]
    Full {
        /// The limit.
        limit: usize,
    },
    /// The loop is draining or has been stopped.
    #[error("the loop is ending and accepts no more streams")]
    Ending,
    /// The stream could not be made non-blocking.
    #[error("cannot make the stream non-blocking")]
    Blocking(#[source] io::Error),
    /// The kernel rejected the stream's descriptor.
    #[error("cannot watch the stream's descriptor")]
    Register(#[source] io::Error),
}

/// A stream that could not be added, with the reason. The error returns the stream to its owner.
///
/// A stream need not be `Sync`, so this error is not `Sync` either, and `?` does not convert it to
/// `Box<dyn Error + Send + Sync>`. `map_err(Refusal::from)?` does: it drops the stream, which
/// closes it, and keeps the [`Refusal`]. In a function that returns a `Refusal`, a plain `?` is
/// enough.
#[derive(Error)]
#[error("cannot add the stream")]
pub struct AddError {
    /// The reason.
    #[source]
    pub refusal: Refusal,
    /// The stream, unchanged except possibly for its mode.
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

/// Why a stream failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StreamFailure {
    /// Reading failed: a reset, or another error of the stream.
    #[error("cannot read from the stream")]
    Read(#[source] io::Error),
    /// Writing failed. Bytes that the peer had already sent can still be read.
    #[error("cannot write to the stream")]
    Write(#[source] io::Error),
    /// The peer has closed its end, after it had ended its direction.
    #[error("the stream's peer has closed its end")]
    PeerGone,
    /// No byte was transferred for the duration of
    /// [`StreamLimits::idle`](crate::StreamLimits#structfield.idle).
    #[error("the stream was idle for too long")]
    Idle,
    /// The kernel rejected a change of what is watched on the stream.
    #[error("cannot change what is watched on the stream")]
    Register(#[source] io::Error),
}
