// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What can go wrong on a stream.

use std::io::{self, ErrorKind};
use std::os::fd::RawFd;

use thiserror::Error;

/// What a call on a stream has failed with; the source of the [`io::Error`] that it returns.
///
/// `WouldBlock` has no such source: it is no failure, and costs no allocation.
///
/// ```
/// use std::io::{ErrorKind, Read};
/// use vsock_inner::{StreamError, VsockInnerStream};
///
/// let (mut stream, peer) = VsockInnerStream::pair()?;
/// peer.abort();
/// let error = stream.read(&mut [0]).unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::ConnectionReset);
/// let source = error.get_ref().and_then(|source| source.downcast_ref());
/// assert!(matches!(source, Some(StreamError::Reset { .. })));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum StreamError {
    /// The peer has aborted, or was dropped by a panic or with bytes unread: `ConnectionReset`.
    #[error("{call} the stream of fd {fd}: the peer aborted, panicked, or left bytes unread")]
    Reset {
        /// What was attempted.
        call: &'static str,
        /// The descriptor of this end.
        fd: RawFd,
    },
    /// The device has refused the connection, or ended it without an answer: `ConnectionRefused`.
    #[error("{call} the stream of fd {fd}: the connection was refused")]
    Refused {
        /// What was attempted.
        call: &'static str,
        /// The descriptor of this end.
        fd: RawFd,
    },
    /// The device has answered something else than `OK <number>`: `InvalidData`.
    #[error("{call} the stream of fd {fd}: the answer to its request is no `OK <number>`")]
    BadAnswer {
        /// What was attempted.
        call: &'static str,
        /// The descriptor of this end.
        fd: RawFd,
    },
    /// This end has shut down writing; or the peer has shut down reading, or was dropped:
    /// `BrokenPipe`.
    #[error("{call} the stream of fd {fd}: the direction was shut down, or the peer dropped")]
    ShutDown {
        /// What was attempted.
        call: &'static str,
        /// The descriptor of this end.
        fd: RawFd,
    },
    /// The timeout has expired before anything could be done: `TimedOut`.
    #[error("{call} the stream of fd {fd}: the timeout has expired")]
    TimedOut {
        /// What was attempted.
        call: &'static str,
        /// The descriptor of this end.
        fd: RawFd,
    },
    /// A [`Canceller`](crate::Canceller) has ended the wait, before anything was done:
    /// `Interrupted`.
    #[error("{call} the stream of fd {fd}: the wait was cancelled")]
    Cancelled {
        /// What was attempted.
        call: &'static str,
        /// The descriptor of this end.
        fd: RawFd,
    },
    /// A timeout of zero was set: `InvalidInput`.
    #[error("a timeout of zero: use the non-blocking mode to not wait at all")]
    ZeroTimeout,
}

impl From<StreamError> for io::Error {
    fn from(error: StreamError) -> Self {
        let kind = match error {
            StreamError::Reset { .. } => ErrorKind::ConnectionReset,
            StreamError::Refused { .. } => ErrorKind::ConnectionRefused,
            StreamError::BadAnswer { .. } => ErrorKind::InvalidData,
            StreamError::ShutDown { .. } => ErrorKind::BrokenPipe,
            StreamError::TimedOut { .. } => ErrorKind::TimedOut,
            StreamError::Cancelled { .. } => ErrorKind::Interrupted,
            StreamError::ZeroTimeout => ErrorKind::InvalidInput,
        };
        Self::new(kind, error)
    }
}
