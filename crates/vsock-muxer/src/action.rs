// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::fmt;
use std::os::fd::RawFd;

use vsock_backend_api::VsockStream;

use crate::Token;

/// Something for the driver to do on its event loop, in order.
///
/// Each descriptor is registered once, by `Watch`, and unregistered once, by `Unwatch` or before the
/// stream of `Close` is dropped. Edge-triggered registration is best; level-triggered works too: the
/// muxer takes a watch back as soon as it sees an event that it cannot use.
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
    /// Unregisters these descriptors, then drops the stream.
    Close {
        /// What it was.
        token: Token,
        /// Its descriptors that are registered.
        fds: [Option<RawFd>; 2],
        /// The stream; dropping it closes it.
        stream: Box<dyn VsockStream>,
    },
}

impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Watch {
                token,
                fd,
                read,
                write,
            } => f
                .debug_struct("Watch")
                .field("token", token)
                .field("fd", fd)
                .field("read", read)
                .field("write", write)
                .finish(),
            Self::Unwatch { token, fd } => f
                .debug_struct("Unwatch")
                .field("token", token)
                .field("fd", fd)
                .finish(),
            Self::Close { token, fds, .. } => f
                .debug_struct("Close")
                .field("token", token)
                .field("fds", fds)
                .finish_non_exhaustive(),
        }
    }
}
