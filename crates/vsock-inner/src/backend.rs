// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The device's side: the backend that supplies a muxer with streams.

use std::any::Any;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use vsock_backend_api::{VsockAddr, VsockBackend, VsockBackendType, VsockStream};

use crate::config::VsockInnerConfig;
use crate::connection::Addresses;
use crate::connector::VsockInnerConnector;
use crate::counters::BackendCounters;
use crate::hub::Hub;
use crate::listener::VsockInnerListener;
use crate::seqpacket::VsockInnerSeqpacket;
use crate::stream::Carries;
use crate::sync::{Arc, EventFd};

/// An in-process vsock backend.
///
/// The backend belongs to a device, which accepts what [connectors](Self::get_connector) open, and
/// connects to [listeners](Self::listen). Dropping the backend refuses further connections and
/// resets those that wait to be accepted. Accepted connections continue.
///
/// ```
/// use std::io::{ErrorKind, Read, Write};
/// use vsock_inner::{VsockBackend, VsockInnerBackend};
///
/// let mut backend = VsockInnerBackend::new()?;
/// let connector = backend.get_connector();
/// let host = std::thread::spawn(move || -> std::io::Result<u32> {
///     let mut stream = connector.connect_to(52)?;
///     let mut answer = [0; 4];
///     stream.read_exact(&mut answer)?;
///     Ok(u32::from_le_bytes(answer))
/// });
///
/// // What a muxer does for its guest:
/// let mut device = loop {
///     match backend.accept() {
///         Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
///         accepted => break accepted?,
///     }
/// };
/// device.set_nonblocking(false)?;
/// let mut request = [0; 11];
/// device.read_exact(&mut request)?;
/// assert_eq!(&request, b"CONNECT 52\n");
/// device.write_all(b"OK 1073741824\n")?;
/// device.write_all(&42u32.to_le_bytes())?;
/// assert_eq!(host.join().unwrap()?, 42);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct VsockInnerBackend {
    hub: Arc<Hub>,
    fd: Arc<EventFd>,
}

impl VsockInnerBackend {
    /// Creates a backend with the default limits.
    ///
    /// # Errors
    ///
    /// Errors of `eventfd(2)`: a backend needs a descriptor.
    pub fn new() -> io::Result<Self> {
        Self::with_config(VsockInnerConfig::default())
    }

    /// Creates a backend with the given limits.
    ///
    /// # Errors
    ///
    /// - `InvalidInput`: the configuration is not valid; the source is a
    ///   [`VsockInnerConfigError`](crate::VsockInnerConfigError).
    /// - Errors of `eventfd(2)`.
    pub fn with_config(config: VsockInnerConfig) -> io::Result<Self> {
        let hub = Arc::new(Hub::new(config)?);
        let fd = Arc::new(EventFd::new()?);
        Ok(Self { hub, fd })
    }

    /// Returns a handle with which host components open connections to the guest.
    #[must_use]
    pub fn get_connector(&self) -> VsockInnerConnector {
        VsockInnerConnector::new(&self.hub)
    }

    /// Creates a listener for connections that the guest opens to `port`.
    ///
    /// # Errors
    ///
    /// - `AddrInUse`: the port already has a listener.
    /// - `InvalidInput`: the port is 0 or `u32::MAX`.
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

impl VsockBackend for VsockInnerBackend {
    fn accept(&mut self) -> io::Result<Box<dyn VsockStream>> {
        match self.hub.backlog.try_pop() {
            Ok(stream) => Ok(match stream.carries {
                Carries::Bytes => Box::new(stream),
                Carries::Messages => Box::new(VsockInnerSeqpacket::over(stream)),
            }),
            // The backlog closes only with the backend itself, so it can only be empty here.
            Err(_) => Err(ErrorKind::WouldBlock.into()),
        }
    }

    fn connect(&self, dst_port: u32) -> io::Result<Box<dyn VsockStream>> {
        Ok(Box::new(self.hub.connect_to_listener(dst_port, None)?))
    }

    fn connect_from(&self, from: VsockAddr, to: VsockAddr) -> io::Result<Box<dyn VsockStream>> {
        let addresses = Addresses {
            guest: from,
            host: to,
        };
        let stream = self.hub.connect_to_listener(to.port, Some(addresses))?;
        Ok(Box::new(stream))
    }

    fn r#type(&self) -> VsockBackendType {
        VsockBackendType::Inner
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl AsRawFd for VsockInnerBackend {
    /// For polling only: readable while a connection waits to be accepted.
    fn as_raw_fd(&self) -> RawFd {
        self.hub.backlog.take_fd(&self.fd);
        self.fd.as_raw_fd()
    }
}

impl AsFd for VsockInnerBackend {
    /// For polling only, like `as_raw_fd`.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.hub.backlog.take_fd(&self.fd);
        self.fd.as_fd()
    }
}

impl Drop for VsockInnerBackend {
    fn drop(&mut self) {
        self.hub.close();
        self.hub.backlog.close_fd();
    }
}
