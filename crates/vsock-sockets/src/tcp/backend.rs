// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::any::Any;
use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use vsock_backend_api::{VsockBackend, VsockBackendType, VsockStream};

use super::socket::{dial, listen};
use super::stream::TcpVsockStream;
use crate::unix::acceptor::Acceptor;
use crate::unix::socket_names::{NameClaim, SocketNames};
use crate::unix::socket_stream::as_fd_of;

/// A backend for connections between one guest and TCP sockets.
///
/// To reach port 1024 of the guest, a client connects to the backend's address and writes
/// `CONNECT 1024\n`, as with a [`UnixBackend`](crate::UnixBackend). The guest's connections go to
/// the addresses to which its ports are [mapped](Self::forward). TCP has no file permissions: any
/// process that can reach the address can reach the guest.
///
/// The backend never blocks. A guest is answered once its connection is established or refused.
/// Clients are refused if no descriptor is left for them.
///
/// ```
/// use std::net::{TcpListener, TcpStream};
/// use vsock_sockets::{TcpBackend, VsockBackend};
///
/// # fn main() -> std::io::Result<()> {
/// let service = TcpListener::bind("127.0.0.1:0")?;
/// let mut backend = TcpBackend::bind("127.0.0.1:0".parse().unwrap())?
///     .forward([(80, service.local_addr()?)])?;
///
/// // A client connects to the guest ...
/// let client = TcpStream::connect(backend.local_addr())?;
/// let device = backend.accept()?;
///
/// // ... and the guest connects to a service.
/// let mut device = backend.connect(80)?;
/// let (served, _) = service.accept()?;
/// device.finish_connect()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "dropping the backend closes its socket"]
pub struct TcpBackend {
    acceptor: Acceptor,
    address: SocketAddr,
    targets: HashMap<u32, SocketAddr>,
    claims: Vec<NameClaim>,
}

impl TcpBackend {
    /// Listens on `address`. With port 0 the system chooses a port.
    ///
    /// # Errors
    ///
    /// - `AddrInUse`: a socket already listens there, or a guest of this process can connect to
    ///   this address.
    /// - Any other error comes from the operating system.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let (acceptor, address) = listen(address)?;
        let claim = NameClaim::new([SocketNames::tcp_listener(address)])?;
        Ok(Self {
            acceptor,
            address,
            targets: HashMap::new(),
            claims: vec![claim],
        })
    }

    /// Maps ports to the addresses that the guest's connections go to. Connections to other ports
    /// are refused.
    ///
    /// # Errors
    ///
    /// - `InvalidInput`: a port already has an address.
    /// - `AddrInUse`: a backend of this process listens on one of the addresses.
    pub fn forward(
        mut self,
        targets: impl IntoIterator<Item = (u32, SocketAddr)>,
    ) -> io::Result<Self> {
        let mut names = Vec::new();
        for (port, address) in targets {
            if self.targets.insert(port, address).is_some() {
                let message = format!("port {port} has two targets: expected one for each port");
                return Err(io::Error::new(ErrorKind::InvalidInput, message));
            }
            names.push(SocketNames::tcp_dialled(address));
        }
        self.claims.push(NameClaim::new(names)?);
        Ok(self)
    }

    /// Returns the address on which the backend listens.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

as_fd_of!(
    /// For polling only: readable while a client waits to be accepted.
    TcpBackend, acceptor
);

impl VsockBackend for TcpBackend {
    /// # Errors
    ///
    /// - `WouldBlock`: no client is waiting.
    /// - `EMFILE`, `ENFILE`: no descriptor is left, and waiting clients were refused.
    /// - Any other error comes from the operating system.
    fn accept(&mut self) -> io::Result<Box<dyn VsockStream>> {
        let socket = self.acceptor.accept()?;
        Ok(Box::new(TcpVsockStream::accepted(socket)))
    }

    /// The stream is not connected yet when this returns: see
    /// [`finish_connect`](VsockStream::finish_connect).
    ///
    /// # Errors
    ///
    /// - `ConnectionRefused`: the port is not mapped to an address.
    /// - Any other error comes from the operating system.
    fn connect(&self, dst_port: u32) -> io::Result<Box<dyn VsockStream>> {
        let address = self
            .targets
            .get(&dst_port)
            .ok_or(ErrorKind::ConnectionRefused)?;
        Ok(Box::new(dial(*address)?))
    }

    fn r#type(&self) -> VsockBackendType {
        VsockBackendType::Tcp
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
