// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The two directions of a stream, borrowed by two users or owned by two owners.

use std::io;

use vsock_inner::{VsockAddr, VsockInnerReader, VsockInnerWriter};

use crate::addr::{Ends, known};
use crate::calls::{reads, writes};

/// The addresses of a half's connection.
macro_rules! addresses {
    () => {
        /// See [`AsyncStream::peer_addr`](crate::AsyncStream::peer_addr).
        ///
        /// # Errors
        ///
        /// `AddrNotAvailable`: the device did not report it.
        pub fn peer_addr(&self) -> io::Result<VsockAddr> {
            known(self.ends.peer)
        }

        /// See [`AsyncStream::local_addr`](crate::AsyncStream::local_addr).
        ///
        /// # Errors
        ///
        /// `AddrNotAvailable`: the device did not report it.
        pub fn local_addr(&self) -> io::Result<VsockAddr> {
            known(self.ends.local)
        }
    };
}

/// The reading half of an [`AsyncStream`](crate::AsyncStream), borrowed by
/// [`split`](crate::AsyncStream::split).
#[derive(Debug)]
pub struct ReadHalf<'a> {
    inner: &'a mut VsockInnerReader,
    ends: Ends,
}

/// The writing half of an [`AsyncStream`](crate::AsyncStream), borrowed by
/// [`split`](crate::AsyncStream::split).
#[derive(Debug)]
pub struct WriteHalf<'a> {
    inner: &'a mut VsockInnerWriter,
    ends: Ends,
}

/// The reading half of an [`AsyncStream`](crate::AsyncStream), which a separate task can own.
///
/// Dropping it closes only its direction: the peer's writes fail with `BrokenPipe`, or with
/// `ConnectionReset` if bytes were left unread or the task panics.
///
/// ```
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
/// use vsock_tokio::AsyncStream;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let (near, mut far) = AsyncStream::pair()?;
/// let (mut reader, mut writer) = near.into_split();
/// let echo = tokio::spawn(async move { tokio::io::copy(&mut reader, &mut writer).await });
///
/// far.write_all(b"ping").await?;
/// far.shutdown().await?;
/// let mut text = String::new();
/// far.read_to_string(&mut text).await?; // until the task has dropped its halves
/// assert_eq!(text, "ping");
/// # echo.await?.map(drop)
/// # }
/// ```
#[derive(Debug)]
pub struct OwnedReadHalf {
    inner: VsockInnerReader,
    ends: Ends,
}

/// The writing half of an [`AsyncStream`](crate::AsyncStream), which a separate task can own.
///
/// Dropping it closes only its direction: the peer reads what is queued, then the end, or
/// `ConnectionReset` if the task panics. See [`OwnedReadHalf`] for an example.
#[derive(Debug)]
pub struct OwnedWriteHalf {
    inner: VsockInnerWriter,
    ends: Ends,
}

impl<'a> ReadHalf<'a> {
    pub(crate) const fn new(reader: &'a mut VsockInnerReader, ends: Ends) -> Self {
        Self {
            inner: reader,
            ends,
        }
    }

    addresses!();
}

impl<'a> WriteHalf<'a> {
    pub(crate) const fn new(writer: &'a mut VsockInnerWriter, ends: Ends) -> Self {
        Self {
            inner: writer,
            ends,
        }
    }

    addresses!();
}

impl OwnedReadHalf {
    pub(crate) const fn new(reader: VsockInnerReader, ends: Ends) -> Self {
        Self {
            inner: reader,
            ends,
        }
    }

    /// Drops the half and resets its direction: the peer's writes fail with `ConnectionReset`.
    pub fn abort(self) {
        self.inner.abort();
    }

    addresses!();
}

impl OwnedWriteHalf {
    pub(crate) const fn new(writer: VsockInnerWriter, ends: Ends) -> Self {
        Self {
            inner: writer,
            ends,
        }
    }

    /// Drops the half and resets its direction: the peer reads what is queued, then gets
    /// `ConnectionReset`.
    pub fn abort(self) {
        self.inner.abort();
    }

    addresses!();
}

reads!(ReadHalf<'_>);
reads!(OwnedReadHalf);
writes!(WriteHalf<'_>);
writes!(OwnedWriteHalf);
