// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Host-initiated connections to a port of the guest.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use vsock_inner::{VsockInnerConnector, VsockInnerStream};

use crate::budget::within_budget;
use crate::listener::AsyncListener;
use crate::stream::AsyncStream;

/// Opens connections to the guest, from any task.
///
/// Create it from a [`VsockInnerConnector`]. It can be cloned and sent between threads. It may
/// outlive the backend, after which it refuses to connect.
///
/// ```
/// use std::time::Duration;
/// use tokio::time::timeout;
/// use vsock_inner::{VsockBackend, VsockInnerBackend};
/// use vsock_tokio::AsyncConnector;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let mut backend = VsockInnerBackend::new()?;
/// let connector = AsyncConnector::from(backend.get_connector());
/// let connecting = tokio::spawn(async move {
///     timeout(Duration::from_secs(5), connector.connect_to(52)).await?
/// });
///
/// # tokio::task::yield_now().await;
/// // What a device does when the guest has accepted:
/// let mut device = backend.accept()?;
/// assert_eq!(device.requested_port(), Some(52));
/// device.confirm(1 << 30)?;
///
/// let stream = connecting.await??;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct AsyncConnector {
    inner: VsockInnerConnector,
}

impl AsyncConnector {
    /// Connects to a port of the guest. The future completes when the guest has accepted. The
    /// stream contains only the guest's bytes.
    ///
    /// Only the device limits the time. There is no limit while no device serves the backend or the
    /// guest has no driver, so wrap the future in `tokio::time::timeout`. Dropping the future
    /// before it completes abandons the connection. The device then gets a reset, whether or not it
    /// has accepted in the meantime.
    ///
    /// # Errors
    ///
    /// - `ConnectionRefused`: the guest refused, the device closed the connection, the backlog is
    ///   full, or the backend has been dropped.
    /// - `InvalidData`: the device's answer was not `OK <number>\n`.
    /// - `Interrupted`: a [`Canceller`](vsock_inner::Canceller) has cancelled the wait.
    /// - Errors of `eventfd(2)`: a connection needs two descriptors.
    pub async fn connect_to(&self, port: u32) -> io::Result<AsyncStream> {
        Attempt(Some(self.inner.start_connect_to(port)?)).await
    }

    /// Creates a listener for connections that the guest opens to `port`.
    ///
    /// # Errors
    ///
    /// As for [`VsockInnerConnector::listen`]: `AddrInUse`, `InvalidInput` for the ports 0 and
    /// `u32::MAX`, `ConnectionRefused` after the backend's drop, and those of `eventfd(2)`.
    pub fn listen(&self, port: u32) -> io::Result<AsyncListener> {
        self.inner.listen(port).map(AsyncListener::from)
    }

    /// Returns the connector for blocking threads.
    #[must_use]
    pub const fn get_ref(&self) -> &VsockInnerConnector {
        &self.inner
    }
}

impl From<VsockInnerConnector> for AsyncConnector {
    fn from(inner: VsockInnerConnector) -> Self {
        Self { inner }
    }
}

/// A connection in progress. Dropping it before it is established aborts it, which the guest sees
/// as a reset rather than an orderly end.
struct Attempt(Option<VsockInnerStream>);

impl Future for Attempt {
    type Output = io::Result<AsyncStream>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(stream) = &mut self.0 {
            ready!(within_budget(cx, |cx| stream.poll_connected(cx)))?;
        }
        // Polled again after completion: there is no stream any more.
        let made = self.0.take().map(AsyncStream::from);
        Poll::Ready(made.ok_or_else(|| io::ErrorKind::NotConnected.into()))
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if let Some(stream) = self.0.take() {
            stream.abort();
        }
    }
}
