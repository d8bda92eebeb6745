// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::any::Any;
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::unix::net::SocketAddr as UnixAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustix::net::{SocketFlags, SocketType};
use thiserror::Error;
use vsock_backend_api::{VsockBackend, VsockBackendType, VsockStream};

use crate::tcp::{TcpVsockStream, listen};
use crate::unix::acceptor::Acceptor;
use crate::unix::client_listener::at_path;
use crate::unix::guarded_socket::GuardedSocket;
use crate::unix::socket_access::SocketAccess;
use crate::unix::socket_file::{SocketFile, SocketFileRemover};
use crate::unix::socket_names::{NameClaim, SocketNames};
use crate::unix::socket_stream::as_fd_of;
use crate::unix::stream::UnixVsockStream;

/// The address at which a port of a guest is exposed.
///
/// In text form: `unix:PATH`, or `tcp:ADDRESS:PORT` with an IP address.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum ExposedAt {
    /// A Unix socket. Its name follows the same [rules](crate#socket-names) as that of a
    /// [`UnixBackend`](crate::UnixBackend).
    Unix(PathBuf),
    /// A TCP address. With port 0 the system chooses a port.
    Tcp(SocketAddr),
}

/// The error for an invalid [`ExposedAt`].
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error(
    "expected unix:PATH with a path of 1 to 107 bytes, or tcp:ADDRESS:PORT with an IP address, \
     such as tcp:127.0.0.1:80"
)]
pub struct ExposedAtError;

impl FromStr for ExposedAt {
    type Err = ExposedAtError;

    fn from_str(text: &str) -> Result<Self, ExposedAtError> {
        match text.split_once(':') {
            Some(("unix", path)) if !path.is_empty() && UnixAddr::from_pathname(path).is_ok() => {
                Ok(Self::Unix(path.into()))
            }
            Some(("tcp", address)) => address.parse().map(Self::Tcp).map_err(|_| ExposedAtError),
            _ => Err(ExposedAtError),
        }
    }
}

impl fmt::Display for ExposedAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
        }
    }
}

impl SocketNames {
    /// Returns the name of the listening socket at this address.
    #[must_use]
    pub fn of_exposed(at: &ExposedAt) -> Self {
        match at {
            ExposedAt::Unix(path) => Self::one(path),
            ExposedAt::Tcp(address) => Self::tcp_listener(*address),
        }
    }
}

/// A backend that exposes a port of the guest as a host socket. Each client is connected to the
/// port without a handshake, so existing programs can use it unchanged.
///
/// If the guest refuses a connection, the client reads the end of the stream, or a reset. The
/// backend refuses connections from the guest, so add it to a device for no ports, for example with
/// `Muxer::add_backend_for(backend, &[])`.
///
/// ```
/// use std::os::unix::net::UnixStream;
/// use vsock_sockets::{ExposeBackend, ExposedAt, VsockBackend};
///
/// # fn main() -> std::io::Result<()> {
/// # let directory = std::env::temp_dir().join(format!("vsock-expose-{}", std::process::id()));
/// # std::fs::create_dir_all(&directory)?;
/// let path = directory.join("ssh.sock");
/// let mut backend = ExposeBackend::bind(&ExposedAt::Unix(path.clone()), 22)?;
/// let client = UnixStream::connect(&path)?;
/// assert_eq!(backend.accept()?.requested_port(), Some(22));
/// # drop(backend);
/// # std::fs::remove_dir_all(&directory)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "dropping it removes the socket"]
pub struct ExposeBackend {
    /// Dropped before the socket: once the socket is closed, another file could get the same inode.
    file: Option<SocketFile>,
    at: ExposedAt,
    port: u32,
    _claim: NameClaim,
    acceptor: Acceptor,
}

impl ExposeBackend {
    /// Listens at `at` for clients of the guest's port `port`.
    ///
    /// # Errors
    ///
    /// The message of each error names the socket.
    ///
    /// - `InvalidInput`: `port` is 4294967295 (`VMADDR_PORT_ANY`).
    /// - `AddrInUse`: a socket already listens there, or a guest of this process can connect to
    ///   this address.
    /// - Any other error comes from the operating system.
    pub fn bind(at: &ExposedAt, port: u32) -> io::Result<Self> {
        Self::bind_with(at, port, SocketAccess::default())
    }

    /// Like [`bind`](Self::bind), with these permissions for the file of a Unix socket.
    ///
    /// # Errors
    ///
    /// As for [`bind`](Self::bind). Also `InvalidInput` for a mode above `0o777`, and errors of the
    /// operating system when it sets the permissions.
    pub fn bind_with(at: &ExposedAt, port: u32, access: SocketAccess) -> io::Result<Self> {
        let named = Path::new("").join(at.to_string());
        Self::listen(at, port, access).map_err(|reason| at_path(&named, reason))
    }

    fn listen(at: &ExposedAt, port: u32, access: SocketAccess) -> io::Result<Self> {
        if port == u32::MAX {
            let message = "invalid guest port 4294967295: expected 0 to 4294967294";
            return Err(io::Error::new(ErrorKind::InvalidInput, message));
        }
        match at {
            ExposedAt::Unix(path) => {
                let claim = NameClaim::new([SocketNames::one(path)])?;
                let listener = GuardedSocket::new(SocketType::STREAM, SocketFlags::NONBLOCK)?;
                Ok(Self {
                    file: Some(SocketFile::bind(path, &listener, access)?),
                    at: at.clone(),
                    port,
                    _claim: claim,
                    acceptor: Acceptor::new(listener)?,
                })
            }
            ExposedAt::Tcp(address) => {
                let (acceptor, address) = listen(*address)?;
                Ok(Self {
                    file: None,
                    at: ExposedAt::Tcp(address),
                    port,
                    _claim: NameClaim::new([SocketNames::tcp_listener(address)])?,
                    acceptor,
                })
            }
        }
    }

    /// Returns the address of the socket. If the system chose the port, it contains that port.
    #[must_use]
    pub const fn exposed_at(&self) -> &ExposedAt {
        &self.at
    }

    /// Returns a handle that can remove the socket's file before the backend is dropped, if there
    /// is a file.
    #[must_use]
    pub fn file_remover(&self) -> Option<SocketFileRemover> {
        self.file.as_ref().map(SocketFile::remover)
    }
}

as_fd_of!(
    /// For polling only: readable while a client waits to be accepted.
    ExposeBackend, acceptor
);

impl VsockBackend for ExposeBackend {
    /// # Errors
    ///
    /// - `WouldBlock`: no client is waiting.
    /// - `EMFILE`, `ENFILE`: no descriptor is left, and waiting clients were refused.
    /// - Any other error comes from the operating system.
    fn accept(&mut self) -> io::Result<Box<dyn VsockStream>> {
        let socket = self.acceptor.accept()?;
        Ok(match self.at {
            ExposedAt::Unix(_) => Box::new(UnixVsockStream::over(socket).wanting(self.port)),
            ExposedAt::Tcp(_) => Box::new(TcpVsockStream::accepted(socket).wanting(self.port)),
        })
    }

    /// # Errors
    ///
    /// Always `ConnectionRefused`: this backend only connects host clients to the guest.
    fn connect(&self, _dst_port: u32) -> io::Result<Box<dyn VsockStream>> {
        Err(ErrorKind::ConnectionRefused.into())
    }

    fn r#type(&self) -> VsockBackendType {
        match self.at {
            ExposedAt::Unix(_) => VsockBackendType::UnixStream,
            ExposedAt::Tcp(_) => VsockBackendType::Tcp,
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[cfg(test)]
mod tests;
