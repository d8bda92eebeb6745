// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::any::Any;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::net::SocketType;
use vsock_backend_api::{ListenerId, VsockBackend, VsockBackendType, VsockStream};

use super::client_listener::{ClientListener, Source, with_suffix};
use super::guarded_socket::GuardedSocket;
use super::seqpacket_stream::UnixSeqpacketStream;
use super::socket_access::SocketAccess;
use super::socket_file::SocketFileRemover;
use super::socket_stream::as_fd_of;

/// A backend for seqpacket connections between one guest and host processes, over Unix sockets that
/// preserve message boundaries. For streams, see [`UnixBackend`](crate::UnixBackend).
///
/// To reach port 1024 of the guest, a host process connects a `SOCK_SEQPACKET` socket to the path
/// followed by `_seqpacket`, and sends `CONNECT 1024\n` as its first message. The answer,
/// `OK <host port>\n`, is a message too. From then on, the process exchanges messages with the
/// guest.
///
/// To serve port 1024 for the guest, a host process listens with a `SOCK_SEQPACKET` socket on the
/// path followed by `_1024`. Streams use the same name, so a port has one of the two types. A guest
/// that connects with the other type of socket is refused.
///
/// ```
/// use vsock_sockets::{UnixSeqpacketBackend, VsockBackend};
///
/// # fn main() -> std::io::Result<()> {
/// # let directory = std::env::temp_dir().join(format!("vsock-seq-{}", std::process::id()));
/// # std::fs::create_dir_all(&directory)?;
/// let backend = UnixSeqpacketBackend::bind(directory.join("vm.vsock"))?;
/// assert!(backend.path().ends_with("vm.vsock_seqpacket"));
/// assert!(backend.service_path(1024).ends_with("vm.vsock_1024"));
/// assert!(backend.has_seqpacket());
/// # drop(backend);
/// # std::fs::remove_dir_all(&directory)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "dropping it removes the socket"]
pub struct UnixSeqpacketBackend {
    clients: ClientListener,
}

impl UnixSeqpacketBackend {
    /// Listens on `path` followed by `_seqpacket`. A socket that a dead process has left there is
    /// replaced.
    ///
    /// # Errors
    ///
    /// As for [`UnixBackend::bind`](crate::UnixBackend::bind). The limit of 107 bytes applies to
    /// the path including the suffix.
    pub fn bind(path: impl AsRef<Path>) -> io::Result<Self> {
        Self::bind_with(path, SocketAccess::default())
    }

    /// Like [`bind`](Self::bind), with these permissions for the socket's file.
    ///
    /// # Errors
    ///
    /// As for [`UnixBackend::bind_with`](crate::UnixBackend::bind_with).
    pub fn bind_with(path: impl AsRef<Path>, access: SocketAccess) -> io::Result<Self> {
        Self::open(path.as_ref(), Source::Bind(access))
    }

    /// Takes over a seqpacket socket that already listens on `path` followed by `_seqpacket`, as a
    /// service manager passes it. The backend does not remove the socket's file.
    ///
    /// # Errors
    ///
    /// As for [`UnixBackend::from_socket`](crate::UnixBackend::from_socket), for a seqpacket
    /// socket.
    pub fn from_socket(socket: OwnedFd, path: impl AsRef<Path>) -> io::Result<Self> {
        Self::open(path.as_ref(), Source::Socket(socket))
    }

    fn open(base: &Path, source: Source) -> io::Result<Self> {
        let path = with_suffix(base, "seqpacket");
        let clients = ClientListener::open(&path, source, SocketType::SEQPACKET, base)?;
        Ok(Self { clients })
    }

    /// Returns the path on which the backend listens.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.clients.path()
    }

    /// Returns a handle that can remove the socket's file before the backend is dropped.
    #[must_use]
    pub fn file_remover(&self) -> SocketFileRemover {
        self.clients.file_remover()
    }

    /// Returns the path on which a host process must listen to serve `port` for the guest.
    #[must_use]
    pub fn service_path(&self, port: u32) -> PathBuf {
        self.clients.service_path(port)
    }
}

as_fd_of!(
    /// For polling only: readable while a client waits to be accepted.
    UnixSeqpacketBackend, clients
);

impl VsockBackend for UnixSeqpacketBackend {
    /// # Errors
    ///
    /// - `WouldBlock`: no client is waiting.
    /// - `EMFILE`, `ENFILE`: no descriptor is left, and waiting clients were refused.
    /// - Any other error comes from the operating system.
    fn accept(&mut self) -> io::Result<Box<dyn VsockStream>> {
        let socket = self.clients.accept()?;
        Ok(Box::new(UnixSeqpacketStream::over(socket)?))
    }

    /// # Errors
    ///
    /// Always `ConnectionRefused`: this backend only has messages.
    fn connect(&self, _dst_port: u32) -> io::Result<Box<dyn VsockStream>> {
        Err(ErrorKind::ConnectionRefused.into())
    }

    fn has_seqpacket(&self) -> bool {
        true
    }

    /// # Errors
    ///
    /// - `NotFound`, `ConnectionRefused`: no process serves the port.
    /// - `EPROTOTYPE`: a process serves the port for streams.
    /// - `WouldBlock`: the backlog of the host process is full; try again later.
    /// - Any other error comes from the operating system.
    fn connect_seqpacket(&self, dst_port: u32) -> io::Result<Box<dyn VsockStream>> {
        let socket = GuardedSocket::dial(&self.service_path(dst_port), SocketType::SEQPACKET)?;
        Ok(Box::new(UnixSeqpacketStream::over(socket)?))
    }

    /// Identifies the listener by its socket's file, as [`UnixBackend`](crate::UnixBackend) does.
    fn listener(&self, dst_port: u32) -> Option<ListenerId> {
        self.clients.listener_id(dst_port)
    }

    fn r#type(&self) -> VsockBackendType {
        VsockBackendType::UnixStream
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::super::client_listener::listener_id;
    use super::*;

    #[test]
    fn a_seqpacket_backend_has_no_streams() {
        let dir = TempDir::new().unwrap();
        let mut backend = UnixSeqpacketBackend::bind(dir.path().join("vm")).unwrap();
        assert_eq!(backend.path(), dir.path().join("vm_seqpacket"));
        assert!(backend.has_seqpacket());
        let kinds = [
            backend.connect(1).err().unwrap().kind(),
            backend.connect_seqpacket(1).err().unwrap().kind(),
            backend.accept().err().unwrap().kind(),
        ];
        let expected = [
            ErrorKind::ConnectionRefused,
            ErrorKind::NotFound,
            ErrorKind::WouldBlock,
        ];
        assert_eq!(kinds, expected);
        assert_eq!(backend.r#type(), VsockBackendType::UnixStream);
        assert!(backend.as_any().is::<UnixSeqpacketBackend>());
        assert_eq!(backend.listener(1), None);
        let path = backend.service_path(1);
        let _service = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert!(backend.listener(1).is_some());
        assert_eq!(backend.listener(1), listener_id(&path));
    }

    #[test]
    fn t99_a_name_is_taken_by_a_socket_of_either_type() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("vm");
        let _backend = UnixSeqpacketBackend::bind(&path).unwrap();
        for taken in [
            UnixSeqpacketBackend::bind(&path).err(),
            crate::UnixBackend::bind(dir.path().join("vm_seqpacket")).err(),
        ] {
            assert_eq!(taken.unwrap().kind(), ErrorKind::AddrInUse);
        }
    }
}
