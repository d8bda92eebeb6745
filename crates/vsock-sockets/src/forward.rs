// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

mod target;

use std::any::Any;
use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::event::{EventfdFlags, eventfd};
use rustix::net::SocketType;
use vsock_backend_api::{ListenerId, VsockBackend, VsockBackendType, VsockStream};

pub use target::{ForwardTarget, ForwardTargetError};

use crate::datagram::DatagramStream;
use crate::tcp::dial;
use crate::unix::client_listener::{listener_id, with_suffix};
use crate::unix::guarded_socket::GuardedSocket;
use crate::unix::seqpacket_stream::UnixSeqpacketStream;
use crate::unix::socket_names::{NameClaim, SocketNames};
use crate::unix::socket_stream::as_fd_of;
use crate::unix::stream::UnixVsockStream;

/// A backend that connects the guest to sockets of existing programs. It creates no sockets in the
/// file system, and no client can reach the guest through it.
///
/// Each port has its own [`ForwardTarget`], or all ports have the same names as with a
/// [`UnixBackend`] ([`each_port`](Self::each_port)). The backend never blocks. Targets can come and
/// go: while a target is missing, the guest's connections to it are refused.
///
/// Add the backend to a device for its own ports, for example with `Muxer::add_backend_for`.
///
/// ```
/// use std::os::unix::net::UnixListener;
/// use vsock_sockets::{ForwardBackend, ForwardTarget, VsockBackend};
///
/// # fn main() -> std::io::Result<()> {
/// # let directory = std::env::temp_dir().join(format!("vsock-forward-{}", std::process::id()));
/// # std::fs::create_dir_all(&directory)?;
/// let path = directory.join("database.sock");
/// let backend = ForwardBackend::new([(5432, ForwardTarget::Unix(path.clone()))])?;
/// let service = UnixListener::bind(&path)?;
/// let device = backend.connect(5432)?;
/// let (served, _) = service.accept()?;
/// # std::fs::remove_dir_all(&directory)?;
/// # Ok(())
/// # }
/// ```
///
/// [`UnixBackend`]: crate::UnixBackend
#[derive(Debug)]
pub struct ForwardBackend {
    targets: Targets,
    /// A descriptor that is never ready, because no host client can connect.
    idle: OwnedFd,
    _claim: NameClaim,
}

#[derive(Debug)]
enum Targets {
    Listed(HashMap<u32, ForwardTarget>),
    /// Every port has this path, followed by `_` and the port.
    EachPort(PathBuf),
}

impl ForwardBackend {
    /// Forwards these ports and refuses all others.
    ///
    /// # Errors
    ///
    /// - `InvalidInput`: a port appears twice.
    /// - `AddrInUse`: this process itself listens on a target, for another purpose or another
    ///   guest.
    /// - Any other error comes from the operating system.
    pub fn new(targets: impl IntoIterator<Item = (u32, ForwardTarget)>) -> io::Result<Self> {
        let mut listed = HashMap::new();
        let mut names = Vec::new();
        for (port, target) in targets {
            names.push(SocketNames::of_target(&target));
            if listed.insert(port, target).is_some() {
                let message = format!("port {port} has two targets: expected one for each port");
                return Err(io::Error::new(ErrorKind::InvalidInput, message));
            }
        }
        Self::with(Targets::Listed(listed), NameClaim::new(names)?)
    }

    /// Forwards streams and messages on every port to `path` followed by `_` and the port, as a
    /// [`UnixBackend`](crate::UnixBackend) at `path` would. Nothing listens on `path` itself.
    ///
    /// # Errors
    ///
    /// - `AddrInUse`: this process itself listens on one of these names.
    /// - Any other error comes from the operating system.
    pub fn each_port(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref();
        let claim = NameClaim::new([SocketNames::each_port(path)])?;
        Self::with(Targets::EachPort(path.to_owned()), claim)
    }

    fn with(targets: Targets, claim: NameClaim) -> io::Result<Self> {
        Ok(Self {
            targets,
            idle: eventfd(0, EventfdFlags::CLOEXEC)?,
            _claim: claim,
        })
    }

    fn target(&self, port: u32) -> Option<ForwardTarget> {
        match &self.targets {
            Targets::Listed(targets) => targets.get(&port).cloned(),
            Targets::EachPort(base) => {
                Some(ForwardTarget::Unix(with_suffix(base, &port.to_string())))
            }
        }
    }
}

impl SocketNames {
    /// Returns the name of a socket that a guest connects to.
    #[must_use]
    pub fn of_target(target: &ForwardTarget) -> Self {
        match target {
            ForwardTarget::Unix(path) | ForwardTarget::Datagrams(path) => Self::dialled(path),
            ForwardTarget::Tcp(address) => Self::tcp_dialled(*address),
        }
    }
}

as_fd_of!(
    /// Never ready.
    ForwardBackend, idle
);

impl VsockBackend for ForwardBackend {
    /// # Errors
    ///
    /// Always `WouldBlock`: this backend has no clients.
    fn accept(&mut self) -> io::Result<Box<dyn VsockStream>> {
        Err(ErrorKind::WouldBlock.into())
    }

    /// A TCP stream is not connected yet when this returns: see
    /// [`finish_connect`](VsockStream::finish_connect).
    ///
    /// # Errors
    ///
    /// - `NotFound`, `ConnectionRefused`: the target does not listen, the port has no target, or
    ///   its target only takes messages.
    /// - `WouldBlock`: the backlog of the target's Unix socket is full; try again later.
    /// - Any other error comes from the operating system.
    fn connect(&self, dst_port: u32) -> io::Result<Box<dyn VsockStream>> {
        match self.target(dst_port) {
            Some(ForwardTarget::Unix(path)) => {
                let socket = GuardedSocket::dial(&path, SocketType::STREAM)?;
                Ok(Box::new(UnixVsockStream::over(socket)))
            }
            Some(ForwardTarget::Tcp(address)) => Ok(Box::new(dial(address)?)),
            Some(ForwardTarget::Datagrams(_)) | None => Err(ErrorKind::ConnectionRefused.into()),
        }
    }

    /// Returns whether at least one target takes messages.
    fn has_seqpacket(&self) -> bool {
        match &self.targets {
            Targets::EachPort(_) => true,
            Targets::Listed(targets) => targets
                .values()
                .any(|target| !matches!(target, ForwardTarget::Tcp(_))),
        }
    }

    /// # Errors
    ///
    /// As for [`connect`](Self::connect). Also `ConnectionRefused` for a TCP target, and
    /// `EPROTOTYPE` if the target's socket has another type.
    fn connect_seqpacket(&self, dst_port: u32) -> io::Result<Box<dyn VsockStream>> {
        match self.target(dst_port) {
            Some(ForwardTarget::Unix(path)) => {
                let socket = GuardedSocket::dial(&path, SocketType::SEQPACKET)?;
                Ok(Box::new(UnixSeqpacketStream::over(socket)?))
            }
            Some(ForwardTarget::Datagrams(path)) => Ok(Box::new(DatagramStream::connect(&path)?)),
            Some(ForwardTarget::Tcp(_)) | None => Err(ErrorKind::ConnectionRefused.into()),
        }
    }

    /// Identifies a Unix socket by its file, as [`UnixBackend`](crate::UnixBackend) does.
    fn listener(&self, dst_port: u32) -> Option<ListenerId> {
        match self.target(dst_port)? {
            ForwardTarget::Unix(path) | ForwardTarget::Datagrams(path) => listener_id(&path),
            ForwardTarget::Tcp(_) => None,
        }
    }

    fn r#type(&self) -> VsockBackendType {
        VsockBackendType::Other("forward")
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[cfg(test)]
mod tests;
