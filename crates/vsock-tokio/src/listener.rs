// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Guest-initiated connections to a port of the host.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use vsock_inner::{VsockAddr, VsockInnerListener};

use crate::budget::within_budget;
use crate::stream::AsyncStream;

/// The host's CID (virtio 1.3, section 5.10.4).
const HOST_CID: u64 = 2;

/// Accepts the connections that the guest opens to a port of the host.
///
/// Create it with [`AsyncConnector::listen`](crate::AsyncConnector::listen), or from a
/// [`VsockInnerListener`], whose mode has no effect here. Dropping it frees the port and resets the
/// connections that wait.
///
/// ```
/// use tokio::io::AsyncWriteExt;
/// use vsock_inner::{VsockAddr, VsockBackend, VsockInnerBackend};
/// use vsock_tokio::AsyncListener;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let backend = VsockInnerBackend::new()?;
/// let listener = AsyncListener::from(backend.listen(1024)?);
///
/// // What a device does when guest 3 connects:
/// let (guest, host) = (VsockAddr { cid: 3, port: 4000 }, VsockAddr { cid: 2, port: 1024 });
/// let device = backend.connect_from(guest, host)?;
///
/// let (mut stream, peer) = listener.accept().await?;
/// assert_eq!(peer, Some(guest));
/// stream.write_all(b"hello").await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct AsyncListener {
    inner: VsockInnerListener,
}

impl AsyncListener {
    /// Takes the next connection, with the address of the guest's end if the device reports it.
    /// Waits if there is no connection yet.
    ///
    /// Several tasks may wait for connections of one listener. A future that is dropped before it
    /// is ready has taken no connection, and another waiting task gets the next one. If more than
    /// 1,024 tasks wait, they wake each other endlessly; one for each thread is enough.
    ///
    /// # Errors
    ///
    /// - `NotConnected`: the backend has been dropped. Later calls fail in the same way.
    /// - `Interrupted`: a [`Canceller`](vsock_inner::Canceller) of the listener has cancelled the
    ///   wait.
    pub async fn accept(&self) -> io::Result<(AsyncStream, Option<VsockAddr>)> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// Like [`accept`](Self::accept), for code that polls. If no connection waits, the task is
    /// woken when one arrives.
    ///
    /// # Errors
    ///
    /// As for [`accept`](Self::accept).
    pub fn poll_accept(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<(AsyncStream, Option<VsockAddr>)>> {
        let stream = ready!(within_budget(cx, |cx| self.inner.poll_accept(cx)))?;
        let peer = stream.peer();
        Poll::Ready(Ok((stream.into(), peer)))
    }

    /// Returns the address to which the guest connects: the host's CID, 2, and the port.
    ///
    /// # Errors
    ///
    /// Never fails; the `Result` mirrors `UnixListener`.
    pub fn local_addr(&self) -> io::Result<VsockAddr> {
        let port = self.inner.port();
        Ok(VsockAddr {
            cid: HOST_CID,
            port,
        })
    }

    /// Converts the listener to an asynchronous stream of connections, which servers such as
    /// tonic's accept.
    #[must_use]
    pub const fn incoming(self) -> Incoming {
        let listener = Some(self);
        Incoming { listener }
    }

    /// Returns the listener for blocking threads and event loops, in the mode that it had before.
    #[must_use]
    pub fn into_inner(self) -> VsockInnerListener {
        self.inner
    }
}

impl From<VsockInnerListener> for AsyncListener {
    fn from(inner: VsockInnerListener) -> Self {
        Self { inner }
    }
}

/// The connections of an [`AsyncListener`] as a stream; created by
/// [`incoming`](AsyncListener::incoming).
///
/// It ends, and drops the listener, after the backend has been dropped. It also ends after a
/// [`Canceller`](vsock_inner::Canceller) of the listener has made an item `Interrupted`. Both
/// therefore stop a server.
#[derive(Debug)]
pub struct Incoming {
    /// `None` once the stream has ended.
    listener: Option<AsyncListener>,
}

impl Stream for Incoming {
    type Item = io::Result<AsyncStream>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(listener) = &self.listener else {
            return Poll::Ready(None);
        };
        let accepted = match ready!(listener.poll_accept(cx)) {
            Ok((stream, _)) => Some(Ok(stream)),
            Err(error) => {
                self.listener = None;
                // The backend's drop ends everything as intended, so it is not reported as a
                // failure.
                (error.kind() != io::ErrorKind::NotConnected).then_some(Err(error))
            }
        };
        Poll::Ready(accepted)
    }
}
