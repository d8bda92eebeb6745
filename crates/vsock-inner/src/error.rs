// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Errors of a stream.

use std::io::{self, ErrorKind};
use std::os::fd::RawFd;

use thiserror::Error;

/// Why a call on a stream failed; the source of the [`io::Error`] that it returns.
///
/// `WouldBlock` has no source, because it is not a failure and must not allocate.
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
    /// The peer aborted, or was dropped during a panic or with bytes unread: `ConnectionReset`.
    #[error(
        "cannot {call} the stream of fd {fd}: the peer aborted, panicked, or left bytes unread"
    )]
    Reset {
        /// The call that failed.
        call: &'static str,
        /// The descriptor of this end.
        fd: RawFd,
    },
    /// The device refused the connection, or closed it without an answer: `ConnectionRefused`.
    #[error("cannot {call} the stream of fd {fd}: the connection was refused")]
    Refused {
        /// The call that failed.
        call: &'static str,
        /// The descriptor of this end.
        fd: RawFd,
    },
    /// The device's answer was not `OK <number>`: `InvalidData`.
    #[error("cannot {call} the stream of fd {fd}: the muxer's answer is not `OK <number>`")]
    BadAnswer {
        /// The call that failed.
        call: &'static str,
        /// The descriptor of this end.
        fd: RawFd,
    },
    /// This end has shut down writing, or the peer has shut down reading or was dropped:
    /// `BrokenPipe`.
    #[error(
        "cannot {call} the stream of fd {fd}: the direction was shut down, or the peer dropped"
    )]
    ShutDown {
        /// The call that failed.
        call: &'static str,
        /// The descriptor of this end.
        fd: RawFd,
    },
    /// The timeout expired before anything was transferred: `TimedOut`.
    #[error("cannot {call} the stream of fd {fd}: the timeout has expired")]
    TimedOut {
        /// The call that failed.
        call: &'static str,
        /// The descriptor of this end.
        fd: RawFd,
    },
    /// A [`Canceller`](crate::Canceller) ended the wait before anything was transferred:
    /// `Interrupted`.
    #[error("cannot {call} the stream of fd {fd}: the wait was cancelled")]
    Cancelled {
        /// The call that failed.
        call: &'static str,
        /// The descriptor of this end.
        fd: RawFd,
    },
    /// The timeout is zero: `InvalidInput`.
    #[error("cannot set a timeout of zero: use non-blocking mode instead")]
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

#[cfg(all(test, not(loom)))]
mod tests {
    use super::StreamError;

    #[test]
    fn each_message_begins_with_what_failed() {
        let (call, fd) = ("read from", 7);
        let errors = [
            StreamError::Reset { call, fd },
            StreamError::Refused { call, fd },
            StreamError::BadAnswer { call, fd },
            StreamError::ShutDown { call, fd },
            StreamError::TimedOut { call, fd },
            StreamError::Cancelled { call, fd },
        ];
        for text in errors.map(|error| error.to_string()) {
            assert!(
                text.starts_with("cannot read from the stream of fd 7: "),
                "{text}"
            );
        }
    }
}
