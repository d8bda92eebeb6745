// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Guest-initiated connections to a port of the host.

use std::fmt;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use thiserror::Error;
use vsock_backend_api::{VsockListener, VsockStream};

use crate::backlog::{Backlog, PopError};
use crate::hub::Hub;
use crate::stream::VsockInnerStream;
use crate::sync::{Arc, AtomicBool, EventFd, Ordering};

/// Accepts the connections that the guest opens to a port of the host.
///
/// It starts in blocking mode. Dropping it frees the port and resets the connections that wait.
///
/// ```
/// use std::io::{Read, Write};
/// use vsock_inner::{VsockBackend, VsockInnerBackend};
///
/// let backend = VsockInnerBackend::new()?;
/// let listener = backend.listen(1024)?;
///
/// // What a muxer does when the guest asks for port 1024:
/// let mut device = backend.connect(1024)?;
/// device.write_all(b"hello")?;
///
/// let mut stream = listener.accept()?;
/// let mut text = [0; 5];
/// stream.read_exact(&mut text)?;
/// assert_eq!(&text, b"hello");
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct VsockInnerListener {
    port: u32,
    nonblocking: AtomicBool,
    pub(crate) backlog: Arc<Backlog>,
    fd: Arc<EventFd>,
    hub: Arc<Hub>,
}

/// Why no connection was accepted; the source of the [`io::Error`]. `WouldBlock` has no source.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum AcceptError {
    /// The backend has been dropped: `NotConnected`.
    #[error("cannot accept on port {port}: the backend has been dropped")]
    Dropped {
        /// The listener's port.
        port: u32,
    },
    /// No connection arrived in time: `TimedOut`.
    #[error("cannot accept on port {port}: no connection within {timeout:?}")]
    TimedOut {
        /// The listener's port.
        port: u32,
        /// The timeout of the call.
        timeout: Duration,
    },
    /// A [`Canceller`](crate::Canceller) has ended the wait: `Interrupted`.
    #[error("cannot accept on port {port}: the wait was cancelled")]
    Cancelled {
        /// The listener's port.
        port: u32,
    },
    /// The timeout is zero: `InvalidInput`.
    #[error("cannot accept on port {port} with a timeout of zero: use non-blocking mode instead")]
    ZeroTimeout {
        /// The listener's port.
        port: u32,
    },
}

impl From<AcceptError> for io::Error {
    fn from(error: AcceptError) -> Self {
        let kind = match error {
            AcceptError::Dropped { .. } => ErrorKind::NotConnected,
            AcceptError::TimedOut { .. } => ErrorKind::TimedOut,
            AcceptError::Cancelled { .. } => ErrorKind::Interrupted,
            AcceptError::ZeroTimeout { .. } => ErrorKind::InvalidInput,
        };
        Self::new(kind, error)
    }
}

impl VsockInnerListener {
    pub(crate) fn new(hub: &Arc<Hub>, port: u32) -> io::Result<Self> {
        let (backlog, fd) = hub.listen(port)?;
        Ok(Self {
            port,
            nonblocking: AtomicBool::new(false),
            backlog,
            fd,
            hub: Arc::clone(hub),
        })
    }

    /// Takes the next connection, which is in blocking mode. Waits for one in blocking mode. The
    /// wait ends when a connection arrives, the backend is dropped, or a
    /// [`canceller`](Self::canceller) cancels it.
    ///
    /// # Errors
    ///
    /// - `WouldBlock`: no connection waits, in non-blocking mode.
    /// - `Interrupted`: the wait was cancelled.
    /// - `NotConnected`: the backend has been dropped.
    pub fn accept(&self) -> io::Result<VsockInnerStream> {
        self.next(None)
    }

    /// Like [`accept`](Self::accept), but waits no longer than `timeout`. Non-blocking mode ignores
    /// the timeout.
    ///
    /// ```
    /// use std::io::ErrorKind;
    /// use std::time::Duration;
    /// use vsock_inner::VsockInnerBackend;
    ///
    /// let backend = VsockInnerBackend::new()?;
    /// let listener = backend.listen(1024)?;
    /// let error = listener.accept_timeout(Duration::from_millis(1)).unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::TimedOut);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`accept`](Self::accept), and:
    ///
    /// - `TimedOut`: no connection arrived in time.
    /// - `InvalidInput`: the timeout is zero.
    pub fn accept_timeout(&self, timeout: Duration) -> io::Result<VsockInnerStream> {
        if timeout.is_zero() {
            return Err(AcceptError::ZeroTimeout { port: self.port }.into());
        }
        self.next(Some(timeout))
    }

    /// Takes the next connection for an async task, in either mode. If no connection waits, returns
    /// `Pending`, and wakes the task when one arrives.
    ///
    /// Several tasks may wait. A connection wakes all of them, and those that find none poll again;
    /// so a dropped future takes no wake-up away from the others. At most 1,024 wakers are kept:
    /// one more wakes all the others, to poll again.
    ///
    /// A task whose wakers share neither their data nor [`will_wake`](std::task::Waker::will_wake)
    /// from poll to poll does not learn of a cancellation that was resumed before it polled again.
    /// It is woken as usual.
    ///
    /// ```
    /// use std::task::{Context, Poll, Waker};
    /// use vsock_inner::{VsockBackend, VsockInnerBackend};
    ///
    /// let backend = VsockInnerBackend::new()?;
    /// let listener = backend.listen(1024)?;
    /// let cx = &mut Context::from_waker(Waker::noop());
    /// assert!(listener.poll_accept(cx).is_pending());
    ///
    /// let device = backend.connect(1024)?; // wakes the task
    /// assert!(matches!(listener.poll_accept(cx), Poll::Ready(Ok(_))));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// - `Interrupted`: the wait was cancelled.
    /// - `NotConnected`: the backend has been dropped.
    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<VsockInnerStream>> {
        let next = self.backlog.poll_pop(cx.waker());
        next.map_err(|why| self.error(why, None))
    }

    fn next(&self, timeout: Option<Duration>) -> io::Result<VsockInnerStream> {
        // ORDER: Relaxed; partner: none, the flag guards nothing.
        let next = if self.nonblocking.load(Ordering::Relaxed) {
            self.backlog.try_pop()
        } else {
            // A time too far ahead for the clock never comes.
            let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
            self.backlog.pop(deadline)
        };
        next.map_err(|why| self.error(why, timeout))
    }

    fn error(&self, why: PopError, timeout: Option<Duration>) -> io::Error {
        let port = self.port;
        match why {
            PopError::Empty => ErrorKind::WouldBlock.into(),
            PopError::Closed => AcceptError::Dropped { port }.into(),
            PopError::Cancelled => AcceptError::Cancelled { port }.into(),
            PopError::TimedOut => {
                let timeout = timeout.unwrap_or_default();
                AcceptError::TimedOut { port, timeout }.into()
            }
        }
    }

    /// Chooses what [`accept`](Self::accept) does if no connection waits: return `WouldBlock`
    /// (`true`) or wait (`false`). A call that is already waiting is not affected.
    ///
    /// # Errors
    ///
    /// Never fails; the `Result` mirrors `UnixListener`.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        // ORDER: Relaxed; partner: none, the flag guards nothing.
        self.nonblocking.store(nonblocking, Ordering::Relaxed);
        Ok(())
    }

    /// Returns the port.
    #[must_use]
    pub const fn port(&self) -> u32 {
        self.port
    }
}

impl VsockListener for VsockInnerListener {
    fn accept(&self) -> io::Result<Box<dyn VsockStream>> {
        Ok(Box::new(self.accept()?))
    }

    fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.set_nonblocking(nonblocking)
    }
}

impl AsRawFd for VsockInnerListener {
    /// For polling only: readable while a connection waits, and after the backend's drop.
    fn as_raw_fd(&self) -> RawFd {
        self.backlog.take_fd(&self.fd);
        self.fd.as_raw_fd()
    }
}

impl AsFd for VsockInnerListener {
    /// For polling only, like `as_raw_fd`.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.backlog.take_fd(&self.fd);
        self.fd.as_fd()
    }
}

impl fmt::Debug for VsockInnerListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VsockInnerListener")
            .field("port", &self.port)
            .field("waiting", &self.backlog.len())
            .finish_non_exhaustive()
    }
}

impl Drop for VsockInnerListener {
    fn drop(&mut self) {
        self.hub.stop_listening(self.port);
        self.backlog.close_fd();
    }
}
