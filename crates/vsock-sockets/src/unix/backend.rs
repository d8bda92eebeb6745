// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::any::Any;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::SocketAddr;
use std::path::{Path, PathBuf};

use rustix::net::SocketType;
use vsock_backend_api::{ListenerId, VsockBackend, VsockBackendType, VsockStream};

use super::client_listener::{ClientListener, Source};
use super::guarded_socket::GuardedSocket;
use super::socket_access::SocketAccess;
use super::socket_file::SocketFileRemover;
use super::socket_stream::as_fd_of;
use super::stream::UnixVsockStream;

/// Connections of one guest over Unix sockets.
///
/// A host process that wants to reach port 1024 of the guest connects to the backend's path and
/// writes `CONNECT 1024\n`; it reads `OK <host port>\n` once the guest has accepted, and from then
/// on the bytes are the guest's. A host process that serves port 1024 for the guest listens on the
/// path followed by `_1024`.
///
/// Nothing here ever waits. Without a descriptor for them, clients are refused. The file of the
/// socket is removed on drop, if it is still the one that was made.
///
/// These are streams of bytes; for messages there is
/// [`UnixSeqpacketBackend`](crate::UnixSeqpacketBackend).
///
/// ```
/// use std::os::unix::net::{UnixListener, UnixStream};
/// use vsock_sockets::{UnixBackend, VsockBackend};
///
/// # fn main() -> std::io::Result<()> {
/// # let directory = std::env::temp_dir().join(format!("vsock-doc-{}", std::process::id()));
/// # std::fs::create_dir_all(&directory)?;
/// let path = directory.join("vm.vsock");
/// let mut backend = UnixBackend::bind(&path)?;
///
/// // A host process goes to the guest ...
/// let client = UnixStream::connect(&path)?;
/// let device = backend.accept()?;
///
/// // ... and the guest to a host process.
/// let service = UnixListener::bind(directory.join("vm.vsock_1024"))?;
/// let device = backend.connect(1024)?;
/// let (served, _) = service.accept()?;
/// # std::fs::remove_dir_all(&directory)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "dropping it removes the socket"]
pub struct UnixBackend {
    clients: ClientListener,
}

impl UnixBackend {
    /// Listens on `path`. A socket that a dead process has left there is replaced.
    ///
    /// A path that leaves no room for every port is warned about: the guest's connections to
    /// the longer ports will be refused.
    ///
    /// # Errors
    ///
    /// Each names the path in its text.
    ///
    /// - `AddrInUse`: another process listens on the path, or it is a file of another kind; or this
    ///   process has another backend or device that listens on one of the guest's ports, or whose
    ///   guest would have this path as a port.
    /// - Anything else comes from the operating system, for example `NotFound` for want of the
    ///   directory, or `InvalidInput` for a path of more than 107 bytes.
    pub fn bind(path: impl AsRef<Path>) -> io::Result<Self> {
        Self::bind_with(path, SocketAccess::default())
    }

    /// As [`bind`](Self::bind), with these permissions of the socket's file.
    ///
    /// # Errors
    ///
    /// Those of [`bind`](Self::bind), and of the operating system for the permissions;
    /// `InvalidInput` for a mode beyond `0o777`.
    pub fn bind_with(path: impl AsRef<Path>, access: SocketAccess) -> io::Result<Self> {
        Self::open(path.as_ref(), Source::Bind(access))
    }

    /// Takes over a socket of streams that listens on `path` already, as a service manager hands it
    /// over: clients that wait are served. Its file stays.
    ///
    /// ```
    /// use std::os::unix::net::{UnixListener, UnixStream};
    /// use vsock_sockets::{UnixBackend, VsockBackend};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// # let directory = std::env::temp_dir().join(format!("vsock-socket-{}", std::process::id()));
    /// # std::fs::create_dir_all(&directory)?;
    /// let path = directory.join("vm.vsock");
    /// let handed_over = UnixListener::bind(&path)?;
    /// let client = UnixStream::connect(&path)?;
    /// let mut backend = UnixBackend::from_socket(handed_over.into(), &path)?;
    /// let device = backend.accept()?;
    /// # std::fs::remove_dir_all(&directory)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// `InvalidInput` if it is no Unix socket of streams that listens, and those of
    /// [`bind`](Self::bind) for names that are used twice in this process.
    pub fn from_socket(socket: OwnedFd, path: impl AsRef<Path>) -> io::Result<Self> {
        Self::open(path.as_ref(), Source::Socket(socket))
    }

    /// As [`bind_with`](Self::bind_with), with clients that may pass files.
    pub(crate) fn bind_for_files(path: &Path, access: SocketAccess) -> io::Result<Self> {
        Self::open(path, Source::BindForFiles(access))
    }

    /// As [`from_socket`](Self::from_socket), with clients that may pass files.
    pub(crate) fn from_socket_for_files(socket: OwnedFd, path: &Path) -> io::Result<Self> {
        Self::open(path, Source::SocketForFiles(socket))
    }

    /// Takes in the next client, whose socket does not block.
    pub(crate) fn accept_client(&mut self) -> io::Result<GuardedSocket> {
        self.clients.accept()
    }

    fn open(path: &Path, source: Source) -> io::Result<Self> {
        let clients = ClientListener::open(path, source, SocketType::STREAM, path)?;
        let backend = Self { clients };
        let longest = backend.service_path(u32::MAX);
        if SocketAddr::from_pathname(&longest).is_err() {
            log::warn!(
                "{} is too long: no process can listen on {}, for the path of a socket has at most 107 bytes; choose a shorter one",
                path.display(),
                longest.display()
            );
        }
        Ok(backend)
    }

    /// Where it listens.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.clients.path()
    }

    /// What can remove the socket's file before the backend does.
    #[must_use]
    pub fn file_remover(&self) -> SocketFileRemover {
        self.clients.file_remover()
    }

    /// Where the host process that serves `port` is expected to listen.
    #[must_use]
    pub fn service_path(&self, port: u32) -> PathBuf {
        self.clients.service_path(port)
    }
}

as_fd_of!(
    /// For polling only: readable while a client waits to be accepted.
    UnixBackend, clients
);

impl VsockBackend for UnixBackend {
    /// # Errors
    ///
    /// - `WouldBlock`: no client waits.
    /// - `EMFILE`, `ENFILE`: no descriptor is left; the clients that waited have been refused.
    /// - Anything else comes from the operating system.
    fn accept(&mut self) -> io::Result<Box<dyn VsockStream>> {
        let socket = self.accept_client()?;
        Ok(Box::new(UnixVsockStream::over(socket)))
    }

    /// # Errors
    ///
    /// - `NotFound`, `ConnectionRefused`: no process serves the port.
    /// - `WouldBlock`: the backlog of the host process is full; to be tried again.
    /// - Anything else comes from the operating system.
    fn connect(&self, dst_port: u32) -> io::Result<Box<dyn VsockStream>> {
        let socket = GuardedSocket::dial(&self.service_path(dst_port), SocketType::STREAM)?;
        Ok(Box::new(UnixVsockStream::over(socket)))
    }

    /// The file of the socket: its device, its inode, and when it was made, for inodes are used
    /// again.
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
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn t135_a_listener_is_known_by_its_file_and_another_one_is_another() {
        let dir = TempDir::new().unwrap();
        let backend = UnixBackend::bind(dir.path().join("vm")).unwrap();
        let path = backend.service_path(5);
        assert_eq!(backend.listener(5), None);
        let first = UnixListener::bind(&path).unwrap();
        let met = backend.listener(5);
        assert!(met.is_some());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        assert_eq!(
            backend.listener(5),
            met,
            "it is the same with other permissions"
        );
        let other = backend.service_path(6);
        symlink(&path, &other).unwrap();
        assert_eq!(backend.listener(6), met, "and by another name");
        fs::rename(&path, dir.path().join("moved")).unwrap();
        let _second = UnixListener::bind(&path).unwrap();
        assert_ne!(backend.listener(5), met);
        drop(first);
    }
}
