// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Both halves together: one end of a connection.

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
/// It behaves as a connected [`UnixStream`](std::os::unix::net::UnixStream) does, with these
/// differences: what a reset is for the peer, it learns of after it has read everything, and a drop
/// by a panic is one; expired timeouts are `TimedOut`; a blocking write returns when all is
/// written; and `as_raw_fd` is for polling only, for `EPOLLIN` only. For `EPOLLOUT` there is
/// [`write_ready_fd`](VsockStream::write_ready_fd).
///
/// Mode and timeouts belong to this end, and are set through the trait [`VsockStream`]. They have
/// no effect on [`poll_read`](Self::poll_read) and the other calls for async tasks.
///
/// It cannot be cloned, and only its owner reads and writes: an end can be used by two threads
/// after [`into_split`](Self::into_split). Another thread can end a waiting call with a
/// [`canceller`](Self::canceller), as it could with the `shutdown` of a cloned socket.
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
    // Is dropped before the writer, which ends as this one has.
    pub(crate) reader: VsockInnerReader,
    pub(crate) writer: VsockInnerWriter,
    /// At a device's end: the port that it was opened for.
    pub(crate) request: Request,
    /// At a device's end: what its bytes are.
    pub(crate) carries: Carries,
}

/// What passes through a stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Carries {
    Bytes,
    /// Whole messages: a backend gives it out as a
    /// [`VsockInnerSeqpacket`](crate::VsockInnerSeqpacket).
    Messages,
}

impl VsockInnerStream {
    /// Makes a connection of its own, without a backend; both ends start blocking.
    ///
    /// # Errors
    ///
    /// Those of `eventfd(2)`: a connection needs two descriptors.
    pub fn pair() -> io::Result<(Self, Self)> {
        Self::pair_with(&VsockInnerConfig::default())
    }

    /// As [`pair`](Self::pair), with other limits. The first end is the application's, the second
    /// the device's.
    ///
    /// # Errors
    ///
    /// - `InvalidInput`: the configuration is not valid.
    /// - Those of `eventfd(2)`.
    pub fn pair_with(config: &VsockInnerConfig) -> io::Result<(Self, Self)> {
        config.check()?;
        Self::connection(config, None)
    }

    /// Makes a connection with a configuration that was checked.
    pub(crate) fn connection(
        config: &VsockInnerConfig,
        open: Option<OpenGuard>,
    ) -> io::Result<(Self, Self)> {
        let connection = Connection::new(config, open);
        // Both first: an end that is dropped for want of the other would count as one that has
        // left.
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

    /// Whether this is a request that no device has taken, whose opener has left. It carries
    /// nothing.
    pub(crate) fn is_given_up(&self) -> bool {
        matches!(self.request, Request::Offered(_)) && self.reader.peer_gone()
    }

    /// Reads without taking: the next read returns the same bytes. Waits as a read does.
    ///
    /// # Errors
    ///
    /// As a read.
    pub fn peek(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.reader.peek(buf)
    }

    /// Ends one direction, or both.
    ///
    /// After `Write` the peer reads what is queued, then the end, and writes here are `BrokenPipe`.
    /// After `Read` what is queued can still be read here, then the end, and the peer's writes are
    /// `BrokenPipe`. To shut down twice, or after the peer's drop, is no error.
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

    /// Borrows the two directions, to use them in turn without giving up the stream.
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

    /// Gives the two directions to two owners. Each half begins with the mode and the timeout that
    /// the stream had, and has its own from then on. The halves cannot be put together again.
    #[must_use]
    pub fn into_split(mut self) -> (VsockInnerReader, VsockInnerWriter) {
        self.reader.half.owner = Owner::Alone;
        self.writer.half.owner = Owner::Alone;
        (self.reader, self.writer)
    }

    /// Drops the stream, with a reset: the peer reads what is queued, then `ConnectionReset`, which
    /// its writes are as well. After `shutdown(Write)` it is as any drop: the end, and
    /// `BrokenPipe`.
    pub fn abort(mut self) {
        self.reader.half.reset_on_drop();
        self.writer.half.reset_on_drop();
    }

    /// Whether the connection is made. Only one that was begun by
    /// [`start_connect_to`](crate::VsockInnerConnector::start_connect_to) is not from the
    /// beginning.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.reader.half.connect_state() == ConnectState::Connected
    }

    /// The address of the other end: at an application's end the CID and the port of the guest.
    ///
    /// It is known at what a listener has accepted from a device that tells it
    /// ([`connect_from`](crate::VsockBackend::connect_from)), and after `connect_to` if the device
    /// took the request out of band. The device's end knows the same two, the other way round.
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

    /// The address of this end, known where that of the [`peer`](Self::peer) is.
    #[must_use]
    pub fn local(&self) -> Option<VsockAddr> {
        let half = &self.reader.half;
        half.connection.address(half.side)
    }

    /// How many bytes wait to be read here.
    #[must_use]
    pub fn queued_in(&self) -> u64 {
        self.reader.queued()
    }

    /// How many bytes wait for the peer to read them.
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

    /// Does nothing: what is written is on its way.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsRawFd for VsockInnerStream {
    /// For polling only, for `EPOLLIN`: readable when a read would not return `WouldBlock`.
    fn as_raw_fd(&self) -> RawFd {
        self.reader.as_raw_fd()
    }
}

impl AsFd for VsockInnerStream {
    /// For polling only, as `as_raw_fd`.
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
        half.connection.credit_for(half.side.peer()).tell(credit);
    }

    fn peer_credit(&self) -> Option<VsockCredit> {
        let half = &self.writer.half;
        half.connection.credit_for(half.side).look()
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
