// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

/// A backend of a [`Muxer`](crate::Muxer).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct BackendId(pub(crate) u32);

/// What a descriptor belongs to: a backend or a stream.
///
/// A stream's token bears a generation: an event for a stream that is gone never reaches the one
/// that has its place, or its descriptor's number. As a `u64` it fits into `epoll_data`.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Token(u64);

impl From<Token> for u64 {
    fn from(token: Token) -> Self {
        token.0
    }
}

impl From<u64> for Token {
    /// Any number is a token; one that was never given out belongs to nothing.
    fn from(bits: u64) -> Self {
        Self(bits)
    }
}

/// What an event loop has reported of a descriptor: a set, for several come at once.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Readiness {
    /// `EPOLLIN`, or `EPOLLRDHUP`.
    pub readable: bool,
    /// `EPOLLOUT`.
    pub writable: bool,
    /// `EPOLLHUP` or `EPOLLERR`: both directions of the peer are gone.
    pub hangup: bool,
}
