// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Host-initiated connections, from any thread.

use std::fmt;
use std::io;
use std::time::Duration;

use vsock_backend_api::{VsockAddr, VsockStream};

use crate::connection::Addresses;
use crate::counters::BackendCounters;
use crate::handshake::{self, HandshakeError};
use crate::hub::Hub;
use crate::listener::VsockInnerListener;
use crate::seqpacket::VsockInnerSeqpacket;
use crate::stream::{Carries, VsockInnerStream};
use crate::sync::Arc;

/// Opens connections to the device of a backend.
///
/// It can be cloned and sent to other threads. It may outlive the backend, after which every
/// connection is refused.
///
/// ```
/// use vsock_inner::{VsockBackend, VsockInnerBackend};
///
/// let mut backend = VsockInnerBackend::new()?;
/// let connector = backend.get_connector();
/// let stream = connector.connect()?;
/// let device = backend.accept()?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct VsockInnerConnector {
    hub: Arc<Hub>,
}

impl VsockInnerConnector {
    pub(crate) fn new(hub: &Arc<Hub>) -> Self {
        Self {
            hub: Arc::clone(hub),
        }
    }

    /// Connects to the device without waiting for it. The stream is in blocking mode.
    ///
    /// The interpretation of the bytes is up to the device; a muxer expects `CONNECT <port>\n`
    /// first. [`connect_to`](Self::connect_to) takes care of that.
    ///
    /// # Errors
    ///
    /// - `ConnectionRefused`: the backlog is full, or the backend has been dropped. The source is a
    ///   [`ConnectError`](crate::ConnectError).
    /// - Errors of `eventfd(2)`: a connection needs two descriptors.
    pub fn connect(&self) -> io::Result<Box<dyn VsockStream>> {
        Ok(Box::new(self.connect_stream()?))
    }

    /// Like [`connect`](Self::connect), with the concrete type.
    ///
    /// # Errors
    ///
    /// As for [`connect`](Self::connect).
    pub fn connect_stream(&self) -> io::Result<VsockInnerStream> {
        self.hub.connect_to_device(None)
    }

    /// Connects to a port of the guest, and waits until the muxer has confirmed. The stream is in
    /// blocking mode, without timeouts, and carries only the guest's bytes.
    ///
    /// The muxer can obtain the port from the stream
    /// ([`requested_port`](VsockStream::requested_port)), or read it as text.
    ///
    /// # Errors
    ///
    /// As for [`connect`](Self::connect). The following have a
    /// [`HandshakeError`](crate::HandshakeError) as their source:
    ///
    /// - `ConnectionRefused`: the muxer ended the connection. The guest refused it, a limit of the
    ///   muxer is reached, or the guest was too slow to take the request (`deliver_timeout` of the
    ///   muxer, 3 s by default) or to answer it (`response_timeout`, 2 s by default).
    /// - `TimedOut`: the muxer did not answer within this backend's
    ///   [`connect_timeout`](crate::VsockInnerConfig#structfield.connect_timeout) (5 s by default).
    ///   No VMM serves the backend, no guest driver is ready, or this timeout is shorter than the
    ///   muxer's.
    /// - `InvalidData`: the answer was not `OK <number>\n`.
    pub fn connect_to(&self, port: u32) -> io::Result<VsockInnerStream> {
        self.connect_to_timeout(port, self.hub.config.connect_timeout)
    }

    /// Like [`connect_to`](Self::connect_to), with the given timeout instead of the configured one.
    ///
    /// ```
    /// use std::io::ErrorKind;
    /// use std::time::Duration;
    /// use vsock_inner::VsockInnerBackend;
    ///
    /// let backend = VsockInnerBackend::new()?; // no VMM serves it
    /// let connector = backend.get_connector();
    /// let error = connector.connect_to_timeout(52, Duration::from_millis(1)).unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::TimedOut);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`connect_to`](Self::connect_to), and:
    ///
    /// - `InvalidInput`: the timeout is zero.
    pub fn connect_to_timeout(&self, port: u32, timeout: Duration) -> io::Result<VsockInnerStream> {
        if timeout.is_zero() {
            return Err(HandshakeError::ZeroTimeout { port }.into());
        }
        let stream = self.start_connect_to(port)?;
        match handshake::wait(&stream, port, timeout, self.hub.config.spin_budget) {
            Ok(()) => Ok(stream),
            Err(error) => {
                // Abort rather than close: the caller never had the connection.
                stream.abort();
                Err(error.into())
            }
        }
    }

    /// Starts to connect to a port of the guest, and returns without waiting.
    ///
    /// Until the muxer confirms, reads and writes of the stream return `WouldBlock` in either mode,
    /// and its descriptors are not ready. When it confirms,
    /// [`write_ready_fd`](VsockStream::write_ready_fd) becomes ready (a new edge),
    /// [`is_connected`](VsockInnerStream::is_connected) returns `true`, and the stream is like one
    /// that [`connect_to`](Self::connect_to) returns. If the muxer refuses, both descriptors become
    /// ready, and from then on reads and writes fail with `ConnectionRefused`, or with
    /// `InvalidData` if the muxer's answer is malformed. If this end has shut its writing down,
    /// `write_ready_fd` is ready immediately, and
    /// [`finish_connect`](VsockStream::finish_connect) fails with `BrokenPipe` until the muxer
    /// answers.
    ///
    /// Only the muxer's timeouts apply. To stop waiting, drop the stream. The request itself may
    /// exceed the capacity [`to_device`](crate::VsockInnerConfig#structfield.to_device), by at most
    /// 19 bytes.
    ///
    /// ```
    /// use std::io::{ErrorKind, Read, Write};
    /// use vsock_inner::{VsockBackend, VsockInnerBackend};
    ///
    /// let mut backend = VsockInnerBackend::new()?;
    /// let mut stream = backend.get_connector().start_connect_to(52)?;
    /// assert!(!stream.is_connected());
    /// assert_eq!(stream.write(b"hello").unwrap_err().kind(), ErrorKind::WouldBlock);
    ///
    /// // What a muxer does, once the guest has accepted:
    /// let mut device = backend.accept()?;
    /// assert_eq!(device.requested_port(), Some(52));
    /// device.confirm(1 << 30)?;
    ///
    /// assert!(stream.is_connected());
    /// assert_eq!(stream.write(b"hello")?, 5);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`connect`](Self::connect).
    pub fn start_connect_to(&self, port: u32) -> io::Result<VsockInnerStream> {
        self.hub.connect_to_device(Some(port))
    }

    /// Like [`start_connect_to`](Self::start_connect_to), with the opener's address. The device of
    /// another guest uses it for connections between guests.
    ///
    /// The stream that the device accepts returns `from` as its [`peer`](VsockStream::peer) even
    /// before the device confirms. If `from` is the address of another guest, each end's descriptor
    /// also becomes readable when the other end [stops reading](VsockStream::peer_stopped_reading),
    /// until the next read.
    ///
    /// ```
    /// use std::io::ErrorKind;
    /// use vsock_inner::{VsockAddr, VsockBackend, VsockInnerBackend, VsockStream};
    ///
    /// let mut backend = VsockInnerBackend::new()?;
    /// let (from, to) = (VsockAddr { cid: 3, port: 4000 }, VsockAddr { cid: 4, port: 52 });
    /// let mut near = backend.get_connector().start_connect_from(from, to)?;
    /// assert_eq!(near.finish_connect().unwrap_err().kind(), ErrorKind::WouldBlock);
    ///
    /// // What the muxer of guest 4 does:
    /// let mut far = backend.accept()?;
    /// assert_eq!((far.requested_port(), far.peer()), (Some(52), Some(from)));
    /// far.confirm_from(to, from)?;
    /// near.finish_connect()?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`connect`](Self::connect).
    pub fn start_connect_from(
        &self,
        from: VsockAddr,
        to: VsockAddr,
    ) -> io::Result<VsockInnerStream> {
        let addresses = Addresses {
            guest: to,
            host: from,
        };
        self.hub.connect_from(addresses, Carries::Bytes)
    }

    /// Like [`start_connect_from`](Self::start_connect_from), for messages.
    ///
    /// # Errors
    ///
    /// As for [`connect`](Self::connect).
    pub fn start_connect_seqpacket_from(
        &self,
        from: VsockAddr,
        to: VsockAddr,
    ) -> io::Result<VsockInnerSeqpacket> {
        let addresses = Addresses {
            guest: to,
            host: from,
        };
        let stream = self.hub.connect_from(addresses, Carries::Messages)?;
        Ok(VsockInnerSeqpacket::over(stream))
    }

    /// Creates a listener for connections that the guest opens to `port`, like
    /// [`VsockInnerBackend::listen`](crate::VsockInnerBackend::listen). Use it once a muxer owns
    /// the backend.
    ///
    /// # Errors
    ///
    /// - `AddrInUse`: the port already has a listener.
    /// - `InvalidInput`: the port is 0 or `u32::MAX`.
    /// - `ConnectionRefused`: the backend has been dropped.
    /// - Errors of `eventfd(2)`: a listener needs a descriptor.
    pub fn listen(&self, port: u32) -> io::Result<VsockInnerListener> {
        VsockInnerListener::new(&self.hub, port)
    }

    /// Returns a snapshot of the backend's counters.
    #[must_use]
    pub fn counters(&self) -> BackendCounters {
        self.hub.counters()
    }
}

impl fmt::Debug for VsockInnerConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VsockInnerConnector")
            .field("counters", &self.counters())
            .finish()
    }
}
