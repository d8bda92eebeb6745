// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One end of a connection.

use std::io;

use vsock_inner::{VsockAddr, VsockInnerStream};

use crate::addr::{Ends, known};
use crate::calls::{reads, writes};
use crate::halves::{OwnedReadHalf, OwnedWriteHalf, ReadHalf, WriteHalf};

/// One end of an in-process connection, for async tasks.
///
/// It resembles tokio's `UnixStream`, but without a descriptor: bytes pass in user space, and the
/// other end wakes a waiting task directly. Each direction holds at most its capacity (256 KiB by
/// default); when it is full, a write waits until the peer has read.
///
/// `shutdown` ends the direction to the peer. Dropping the stream closes it. If it is dropped with
/// unread bytes, or during a panic, the peer gets a reset.
///
/// A stream comes from an [`AsyncConnector`](crate::AsyncConnector) or an
/// [`AsyncListener`](crate::AsyncListener), from [`pair`](Self::pair), or from a
/// [`VsockInnerStream`]. The other end can be used by a blocking thread, or by a device on its
/// event loop. The mode and timeouts of the [`VsockInnerStream`] have no effect here, but are kept
/// for [`into_inner`](Self::into_inner).
///
/// ```
/// use std::io::{Read, Write};
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
/// use vsock_tokio::{AsyncStream, VsockInnerStream};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let (near, mut far) = VsockInnerStream::pair()?;
/// let blocking = std::thread::spawn(move || -> std::io::Result<()> {
///     let mut text = [0; 4];
///     far.read_exact(&mut text)?;
///     far.write_all(&text)
/// });
///
/// let mut near = AsyncStream::from(near);
/// near.write_all(b"echo").await?;
/// let mut text = [0; 4];
/// near.read_exact(&mut text).await?;
/// assert_eq!(&text, b"echo");
/// # blocking.join().unwrap()
/// # }
/// ```
#[derive(Debug)]
pub struct AsyncStream {
    inner: VsockInnerStream,
}

impl AsyncStream {
    /// Creates a connection without a device, and returns its two ends.
    ///
    /// For other capacities, use [`VsockInnerStream::pair_with`].
    ///
    /// # Errors
    ///
    /// Errors of `eventfd(2)`: a connection needs two descriptors.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (near, far) = VsockInnerStream::pair()?;
        Ok((near.into(), far.into()))
    }

    /// Returns the address of the other end: the CID and port of the guest.
    ///
    /// # Errors
    ///
    /// `AddrNotAvailable`, with an [`AddrError`](crate::AddrError) as source: the device did not
    /// report it ([`VsockInnerStream::peer`]). The `vsock-virtio` device does.
    pub fn peer_addr(&self) -> io::Result<VsockAddr> {
        known(self.ends().peer)
    }

    /// Returns the address of this end: the host's CID, 2, and the port.
    ///
    /// # Errors
    ///
    /// As for [`peer_addr`](Self::peer_addr).
    pub fn local_addr(&self) -> io::Result<VsockAddr> {
        known(self.ends().local)
    }

    /// Borrows the two directions separately, for two users in one task.
    ///
    /// ```
    /// use tokio::io::AsyncWriteExt;
    /// use vsock_tokio::AsyncStream;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// let (mut near, mut far) = AsyncStream::pair()?;
    /// near.write_all(b"hello").await?;
    /// near.shutdown().await?;
    ///
    /// let (mut reader, mut writer) = far.split();
    /// assert_eq!(tokio::io::copy(&mut reader, &mut writer).await?, 5);
    /// # Ok(())
    /// # }
    /// ```
    pub fn split(&mut self) -> (ReadHalf<'_>, WriteHalf<'_>) {
        let ends = self.ends();
        let (reader, writer) = self.inner.halves();
        (ReadHalf::new(reader, ends), WriteHalf::new(writer, ends))
    }

    /// Splits the stream into its two directions, which can have different owners, such as tasks on
    /// different threads.
    ///
    /// Dropping a half closes its direction, without waiting for the other half. When the
    /// [`OwnedWriteHalf`] is dropped, the peer reads the end; when the [`OwnedReadHalf`] is
    /// dropped, the peer's writes fail. The halves cannot be rejoined.
    #[must_use]
    pub fn into_split(self) -> (OwnedReadHalf, OwnedWriteHalf) {
        let ends = self.ends();
        let (reader, writer) = self.inner.into_split();
        (
            OwnedReadHalf::new(reader, ends),
            OwnedWriteHalf::new(writer, ends),
        )
    }

    /// Drops the stream and resets the connection: the peer reads what is queued, then gets
    /// `ConnectionReset`.
    pub fn abort(self) {
        self.inner.abort();
    }

    /// Returns the stream for blocking threads and event loops, in the mode that it had before.
    #[must_use]
    pub fn into_inner(self) -> VsockInnerStream {
        self.inner
    }

    pub(crate) fn ends(&self) -> Ends {
        Ends {
            peer: self.inner.peer(),
            local: self.inner.local(),
        }
    }
}

impl From<VsockInnerStream> for AsyncStream {
    fn from(stream: VsockInnerStream) -> Self {
        Self { inner: stream }
    }
}

reads!(AsyncStream);
writes!(AsyncStream);
