// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One end of a connection: both halves together.

use std::any::Any;
use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use vsock_backend_api::{VsockAddr, VsockBackendType, VsockCredit, VsockStream};

use crate::config::VsockInnerConfig;
use crate::connection::{Addresses, ConnectState, Connection, Side};
use crate::counters::OpenGuard;
use crate::half::{Half, Owner};
use crate::reader::VsockInnerReader;
use crate::request::Request;
use crate::sync::{Arc, EventFd};
use crate::word::READ_SHUT;
use crate::writer::VsockInnerWriter;

/// One end of an in-process connection.
///
/// It behaves like a connected [`UnixStream`](std::os::unix::net::UnixStream), with these
/// differences:
///
/// - The peer learns of a reset only after it has read everything that was queued. A drop during a
///   panic is a reset.
/// - An expired timeout is `TimedOut`.
/// - A blocking write returns when everything is written.
/// - `as_raw_fd` is for polling only, and only for `EPOLLIN`. For `EPOLLOUT`, use
///   [`write_ready_fd`](VsockStream::write_ready_fd).
///
/// Mode and timeouts belong to this end, and are set through the trait [`VsockStream`]. They do not
/// affect [`poll_read`](Self::poll_read) and the other calls for async tasks.
///
/// A stream cannot be cloned, and only its owner can read and write. Two threads can use one end
/// after [`into_split`](Self::into_split). Another thread can end a waiting call with a
/// [`canceller`](Self::canceller), as it could with `shutdown` on a cloned socket.
///
/// ```
/// use std::io::{Read, Write};
/// use std::net::Shutdown;
/// use std::time::Duration;
/// use vsock_inner::{VsockInnerStream, VsockStream};
///
/// let (mut near, mut far) = VsockInnerStream::pair()?;
/// far.set_read_timeout(Some(Duration::from_secs(5)))?;
/// near.write_all(b"hello")?;
/// near.shutdown(Shutdown::Write)?;
///
/// let mut text = String::new();
/// far.read_to_string(&mut text)?;
/// assert_eq!(text, "hello");
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct VsockInnerStream {
    // Dropped before the writer, because the writer ends in the same way as the reader has.
    pub(crate) reader: VsockInnerReader,
    pub(crate) writer: VsockInnerWriter,
    /// At the device end: the port that the connection was opened for.
    pub(crate) request: Request,
    /// At the device end: what the stream carries.
    pub(crate) carries: Carries,
}

/// What a stream carries.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Carries {
    Bytes,
    /// Whole messages. A backend returns such a stream as a
    /// [`VsockInnerSeqpacket`](crate::VsockInnerSeqpacket).
    Messages,
}

impl VsockInnerStream {
    /// Creates a connection without a backend, and returns both ends in blocking mode.
    ///
    /// # Errors
    ///
    /// Errors of `eventfd(2)`: a connection needs two descriptors.
    pub fn pair() -> io::Result<(Self, Self)> {
        Self::pair_with(&VsockInnerConfig::default())
    }

    /// Like [`pair`](Self::pair), with other limits. The first end is the application's, the second
    /// the device's.
    ///
    /// # Errors
    ///
    /// - `InvalidInput`: the configuration is not valid.
    /// - Errors of `eventfd(2)`.
    pub fn pair_with(config: &VsockInnerConfig) -> io::Result<(Self, Self)> {
        config.check()?;
        Self::connection(config, None)
    }

    /// Creates a connection with a configuration that has been checked.
    pub(crate) fn connection(
        config: &VsockInnerConfig,
        open: Option<OpenGuard>,
    ) -> io::Result<(Self, Self)> {
        let connection = Connection::new(config, open);
        // Create both descriptors before either end. If the second failed, dropping the first end
        // would count as a peer that has left.
        let handles = (Arc::new(EventFd::new()?), Arc::new(EventFd::new()?));
        let end = |side, handle: Arc<EventFd>| {
            let half = Half::new(&connection, side, handle.as_raw_fd(), config.spin_budget);
            Self {
                reader: VsockInnerReader::new(half.clone(), handle, config.spin_budget),
                writer: VsockInnerWriter::new(half),
                request: Request::None,
                carries: Carries::Bytes,
            }
        };
        let application = end(Side::Application, handles.0);
        Ok((application, end(Side::Device, handles.1)))
    }

    /// Whether this is a request that no device has taken and whose opener has left. Such a stream
    /// carries nothing.
    pub(crate) fn is_given_up(&self) -> bool {
        matches!(self.request, Request::Offered(_)) && self.reader.peer_gone()
    }

    /// Reads without consuming: the next read returns the same bytes. Waits like a read.
    ///
    /// # Errors
    ///
    /// As for a read.
    pub fn peek(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.reader.peek(buf)
    }

    /// Shuts down one direction, or both.
    ///
    /// After `Write`, the peer reads what is queued, then the end, and writes at this end fail with
    /// `BrokenPipe`. After `Read`, this end can still read what is queued, then the end, and the
    /// peer's writes fail with `BrokenPipe`. Shutting down again, or after the peer's drop,
    /// succeeds.
    ///
    /// # Errors
    ///
    /// Never fails; the `Result` mirrors `UnixStream`.
    pub fn shutdown(&mut self, how: Shutdown) -> io::Result<()> {
        if matches!(how, Shutdown::Write | Shutdown::Both) {
            self.writer.shutdown()?;
        }
        if matches!(how, Shutdown::Read | Shutdown::Both) {
            self.reader.shutdown()?;
        }
        Ok(())
    }

    /// Borrows the two directions separately, without giving up the stream.
    ///
    /// ```
    /// use std::io;
    /// use std::io::Write;
    /// use std::net::Shutdown;
    /// use vsock_inner::VsockInnerStream;
    ///
    /// let (mut near, mut far) = VsockInnerStream::pair()?;
    /// near.write_all(b"hello")?;
    /// near.shutdown(Shutdown::Write)?;
    ///
    /// let (reader, writer) = far.halves();
    /// assert_eq!(io::copy(reader, writer)?, 5);
    /// # Ok::<(), io::Error>(())
    /// ```
    pub const fn halves(&mut self) -> (&mut VsockInnerReader, &mut VsockInnerWriter) {
        (&mut self.reader, &mut self.writer)
    }

    /// Splits the stream into its two directions, which can have different owners. Each half starts
    /// with the mode and timeout of the stream, and then has its own. The halves cannot be
    /// rejoined.
    #[must_use]
    pub fn into_split(mut self) -> (VsockInnerReader, VsockInnerWriter) {
        self.reader.half.owner = Owner::Alone;
        self.writer.half.owner = Owner::Alone;
        (self.reader, self.writer)
    }

    /// Drops the stream and resets the connection. The peer reads what is queued, then gets
    /// `ConnectionReset`; its writes fail with `ConnectionReset` as well. After `shutdown(Write)`
    /// this is like any drop: the end, and `BrokenPipe`.
    pub fn abort(mut self) {
        self.reader.half.reset_on_drop();
        self.writer.half.reset_on_drop();
    }

    /// Returns whether the connection is established. Always `true`, except for a stream that was
    /// begun with a method such as
    /// [`start_connect_to`](crate::VsockInnerConnector::start_connect_to).
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.reader.half.connect_state() == ConnectState::Connected
    }

    /// Returns the address of the other end. At the application end, this is the guest's CID and
    /// port.
    ///
    /// It is known for a stream from a listener if the device passed it on
    /// ([`connect_from`](crate::VsockBackend::connect_from)), and for a stream from `connect_to` if
    /// the device took the request out of band. The device end knows the same two addresses, the
    /// other way round.
    ///
    /// ```
    /// use vsock_inner::{VsockAddr, VsockBackend, VsockInnerBackend};
    ///
    /// let backend = VsockInnerBackend::new()?;
    /// let listener = backend.listen(1024)?;
    ///
    /// // What a muxer does for guest 3:
    /// let (guest, host) = (VsockAddr { cid: 3, port: 4000 }, VsockAddr { cid: 2, port: 1024 });
    /// let device = backend.connect_from(guest, host)?;
    ///
    /// let stream = listener.accept()?;
    /// assert_eq!((stream.peer(), stream.local()), (Some(guest), Some(host)));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[must_use]
    pub fn peer(&self) -> Option<VsockAddr> {
        let half = &self.reader.half;
        half.connection.address(half.side.peer())
    }

    /// Returns the address of this end, which is known whenever the [`peer`](Self::peer)'s is.
    #[must_use]
    pub fn local(&self) -> Option<VsockAddr> {
        let half = &self.reader.half;
        half.connection.address(half.side)
    }

    /// Returns the number of bytes that wait to be read at this end.
    #[must_use]
    pub fn queued_in(&self) -> u64 {
        self.reader.queued()
    }

    /// Returns the number of bytes that wait for the peer to read them.
    #[must_use]
    pub fn queued_out(&self) -> u64 {
        self.writer.queued()
    }
}

impl Read for VsockInnerStream {
    #[inline]
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buf)
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.reader.read_vectored(bufs)
    }
}

impl Write for VsockInnerStream {
    #[inline]
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let written = self.writer.write(buf);
        self.reader.wrote(&written);
        written
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let written = self.writer.write_vectored(bufs);
        self.reader.wrote(&written);
        written
    }

    /// Does nothing: written bytes are already visible to the peer.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsRawFd for VsockInnerStream {
    /// For polling only, and only for `EPOLLIN`: readable when a read would not return
    /// `WouldBlock`.
    fn as_raw_fd(&self) -> RawFd {
        self.reader.as_raw_fd()
    }
}

impl AsFd for VsockInnerStream {
    /// For polling only, like `as_raw_fd`.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}

impl VsockStream for VsockInnerStream {
    fn backend_type(&self) -> VsockBackendType {
        VsockBackendType::Inner
    }

    fn set_nonblocking(&mut self, nonblocking: bool) -> io::Result<()> {
        self.reader.set_nonblocking(nonblocking)?;
        self.writer.set_nonblocking(nonblocking)
    }

    fn set_read_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.reader.set_timeout(timeout)
    }

    fn set_write_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.writer.set_timeout(timeout)
    }

    fn shutdown(&mut self, how: Shutdown) -> io::Result<()> {
        Self::shutdown(self, how)
    }

    fn write_ready_fd(&self) -> io::Result<RawFd> {
        self.writer.write_ready_fd()
    }

    fn write_ready(&self) -> io::Result<BorrowedFd<'_>> {
        self.writer.write_ready()
    }

    fn finish_connect(&mut self) -> io::Result<()> {
        self.writer.finish_connect()
    }

    fn requested_port(&mut self) -> Option<u32> {
        self.request.take(&mut self.reader)
    }

    fn confirm(&mut self, _host_port: u32) -> io::Result<()> {
        self.request.confirm(&mut self.writer, None)
    }

    fn confirm_from(&mut self, guest: VsockAddr, host: VsockAddr) -> io::Result<()> {
        let addresses = Addresses { guest, host };
        self.request.confirm(&mut self.writer, Some(addresses))
    }

    fn peer(&self) -> Option<VsockAddr> {
        Self::peer(self)
    }

    fn local(&self) -> Option<VsockAddr> {
        Self::local(self)
    }

    fn peer_gone(&self) -> bool {
        self.reader.peer_gone()
    }

    fn peer_stopped_reading(&self) -> bool {
        self.writer.half.outgoing().space.load().has(READ_SHUT)
    }

    fn tell_credit(&self, credit: VsockCredit) {
        let half = &self.writer.half;
        half.connection.credit_for(half.side.peer()).report(credit);
    }

    fn peer_credit(&self) -> Option<VsockCredit> {
        let half = &self.writer.half;
        half.connection.credit_for(half.side).newest()
    }

    fn credit_fd(&self, known: Option<VsockCredit>) -> io::Result<RawFd> {
        let half = &self.writer.half;
        half.connection.credit_for(half.side).await_change(known)
    }

    fn abort(self: Box<Self>) {
        Self::abort(*self);
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> Option<&mut dyn Any> {
        Some(self)
    }

    fn into_any(self: Box<Self>) -> Option<Box<dyn Any>> {
        Some(self)
    }
}

impl fmt::Debug for VsockInnerStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VsockInnerStream")
            .field("reader", &self.reader)
            .field("writer", &self.writer)
            .finish()
    }
}
