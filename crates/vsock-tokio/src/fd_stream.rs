// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Any stream of a backend, polled through its descriptors.

use std::fmt;
use std::io::{self, ErrorKind, IoSlice};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use vsock_inner::{VsockAddr, VsockStream};

use crate::addr::{Ends, known};

/// Any [`VsockStream`], for async tasks: tokio's I/O driver polls its descriptors.
///
/// An in-process stream does not need this, and is faster as an
/// [`AsyncStream`](crate::AsyncStream).
///
/// Reads wait for the descriptor `as_raw_fd`, writes for
/// [`write_ready_fd`](VsockStream::write_ready_fd), which for a socket is the same. Cancelling and
/// shutting down work as for an [`AsyncStream`](crate::AsyncStream), but what the peer sees when
/// the stream is dropped depends on the stream.
///
/// ```
/// use std::os::unix::net::UnixStream;
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
/// use vsock_tokio::AsyncFdStream;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let (near, far) = UnixStream::pair()?;
/// let mut near = AsyncFdStream::new(Box::new(near))?;
/// let mut far = AsyncFdStream::new(Box::new(far))?;
/// near.write_all(b"hello").await?;
/// let mut text = [0; 5];
/// far.read_exact(&mut text).await?;
/// assert_eq!(&text, b"hello");
/// # Ok(())
/// # }
/// ```
pub struct AsyncFdStream {
    // Both are dropped before the stream, because the stream closes the descriptors.
    readable: AsyncFd<Number>,
    /// `None`: the descriptor for reading serves for writing too.
    writable: Option<AsyncFd<Number>>,
    /// Never locked. The mutex makes a stream that is only `Send` also `Sync`; its owner accesses
    /// it without a lock.
    stream: Mutex<Box<dyn VsockStream>>,
    ends: Ends,
}

/// The number of a descriptor owned by a stream.
#[derive(Clone, Copy, Debug)]
struct Number(RawFd);

impl AsRawFd for Number {
    fn as_raw_fd(&self) -> RawFd {
        self.0
    }
}

impl AsyncFdStream {
    /// Makes the stream non-blocking, and registers its descriptors with the task's runtime.
    ///
    /// # Errors
    ///
    /// - As for [`set_nonblocking`](VsockStream::set_nonblocking), except `Unsupported`: a stream
    ///   with only one mode is non-blocking.
    /// - As for [`write_ready_fd`](VsockStream::write_ready_fd).
    /// - Errors of `epoll_ctl(2)`: for example `EPERM` for a descriptor that cannot be polled,
    ///   `EEXIST` for one that is registered already.
    ///
    /// # Panics
    ///
    /// Panics if it is not called on a tokio runtime with an I/O driver (`enable_io`).
    pub fn new(mut stream: Box<dyn VsockStream>) -> io::Result<Self> {
        match stream.set_nonblocking(true) {
            Err(error) if error.kind() != ErrorKind::Unsupported => return Err(error),
            _ => {}
        }
        let (read_fd, write_fd) = (stream.as_raw_fd(), stream.write_ready_fd()?);
        let (readable, writable) = if read_fd == write_fd {
            (
                watch(read_fd, Interest::READABLE | Interest::WRITABLE)?,
                None,
            )
        } else {
            let writable = watch(write_fd, Interest::WRITABLE)?;
            (watch(read_fd, Interest::READABLE)?, Some(writable))
        };
        Ok(Self {
            readable,
            writable,
            ends: Ends {
                peer: stream.peer(),
                local: stream.local(),
            },
            stream: Mutex::new(stream),
        })
    }

    /// See [`AsyncStream::peer_addr`](crate::AsyncStream::peer_addr).
    ///
    /// # Errors
    ///
    /// `AddrNotAvailable`: the stream does not know its address.
    pub fn peer_addr(&self) -> io::Result<VsockAddr> {
        known(self.ends.peer)
    }

    /// See [`AsyncStream::local_addr`](crate::AsyncStream::local_addr).
    ///
    /// # Errors
    ///
    /// `AddrNotAvailable`: the stream does not know its address.
    pub fn local_addr(&self) -> io::Result<VsockAddr> {
        known(self.ends.local)
    }

    /// Drops the stream, and resets the connection if the stream supports it.
    pub fn abort(self) {
        self.into_inner().abort();
    }

    /// Returns the stream, unregistered and in non-blocking mode.
    #[must_use]
    pub fn into_inner(self) -> Box<dyn VsockStream> {
        let Self {
            readable,
            writable,
            stream,
            ..
        } = self;
        drop((readable, writable));
        stream.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `write` whenever the stream is writable, until the call has a result.
    fn poll_writing(
        &mut self,
        cx: &mut Context<'_>,
        len: usize,
        mut write: impl FnMut(&mut dyn VsockStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        if len == 0 {
            return Poll::Ready(Ok(0));
        }
        let writable = self.writable.as_ref().unwrap_or(&self.readable);
        loop {
            let mut ready = ready!(writable.poll_write_ready(cx))?;
            if let Some(written) = come_to(write(own(&mut self.stream)), len) {
                return Poll::Ready(written);
            }
            ready.clear_ready();
        }
    }
}

fn own(stream: &mut Mutex<Box<dyn VsockStream>>) -> &mut dyn VsockStream {
    &mut **stream.get_mut().unwrap_or_else(PoisonError::into_inner)
}

/// Registers a descriptor.
fn watch(fd: RawFd, interest: Interest) -> io::Result<AsyncFd<Number>> {
    #[expect(
        deprecated,
        reason = "`register` requires a promise about the descriptor, which `VsockStream` makes \
                  but no compiler can check; if it is broken, the wrong descriptor is polled"
    )]
    AsyncFd::with_interest(Number(fd), interest)
}

/// Returns the result of a call, unless it would have to wait. A count above `len`, the number of
/// bytes offered, is an error.
fn come_to(result: io::Result<usize>, len: usize) -> Option<io::Result<usize>> {
    match result {
        Ok(count) if count > len => Some(Err(ErrorKind::InvalidData.into())),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        done => Some(done),
    }
}

impl AsyncRead for AsyncFdStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let rest = buf.initialize_unfilled();
        if rest.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let read = loop {
            let mut ready = ready!(this.readable.poll_read_ready(cx))?;
            if let Some(read) = come_to(own(&mut this.stream).read(rest), rest.len()) {
                break read?;
            }
            ready.clear_ready();
        };
        buf.advance(read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for AsyncFdStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_writing(cx, buf.len(), |stream| stream.write(buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let len = bufs
            .iter()
            .fold(0, |sum: usize, buf| sum.saturating_add(buf.len()));
        self.poll_writing(cx, len, |stream| stream.write_vectored(bufs))
    }

    /// Always `true`: a stream does not say whether it supports vectored writes, and one that does
    /// not writes the first buffer.
    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Calls the stream first, because a stream with nothing to flush need not be writable.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let writable = this.writable.as_ref().unwrap_or(&this.readable);
        loop {
            match own(&mut this.stream).flush() {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                flushed => return Poll::Ready(flushed),
            }
            ready!(writable.poll_write_ready(cx))?.clear_ready();
        }
    }

    /// Flushes the stream, then shuts the direction down. `Unsupported` if the stream has no
    /// half-close.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        Poll::Ready(own(&mut self.stream).shutdown(Shutdown::Write))
    }
}

impl fmt::Debug for AsyncFdStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncFdStream")
            .field("readable", &self.readable)
            .field("writable", &self.writable)
            .finish_non_exhaustive()
    }
}
