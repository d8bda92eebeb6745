// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io;

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, duplex};
use tokio::net::UnixStream;
use vsock_tokio::AsyncStream;

/// Makes two connected ends for tasks on a tokio runtime.
pub(crate) trait AsyncTransport: Copy + Send + 'static {
    /// One end: a byte stream in both directions.
    type End: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// Makes a connected pair of ends.
    fn pair(self) -> io::Result<(Self::End, Self::End)>;
}

/// `tokio::io::duplex`, with this capacity in each direction.
#[derive(Clone, Copy)]
pub(crate) struct Duplex(pub(crate) usize);

impl AsyncTransport for Duplex {
    type End = DuplexStream;

    fn pair(self) -> io::Result<(DuplexStream, DuplexStream)> {
        Ok(duplex(self.0))
    }
}

/// `tokio::net::UnixStream::pair`, with the kernel's default socket buffers.
#[derive(Clone, Copy)]
pub(crate) struct TokioUnixPair;

impl AsyncTransport for TokioUnixPair {
    type End = UnixStream;

    fn pair(self) -> io::Result<(UnixStream, UnixStream)> {
        UnixStream::pair()
    }
}

/// `vsock-tokio`, with the default capacity of 256 KiB.
#[derive(Clone, Copy)]
pub(crate) struct TokioInner;

impl AsyncTransport for TokioInner {
    type End = AsyncStream;

    fn pair(self) -> io::Result<(AsyncStream, AsyncStream)> {
        AsyncStream::pair()
    }
}
