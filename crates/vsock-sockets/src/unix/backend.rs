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

/// A backend for streams between one guest and host processes, over Unix sockets.
///
/// To reach port 1024 of the guest, a host process connects to the backend's path and writes
/// `CONNECT 1024\n`. It reads `OK <host port>\n` once the guest has accepted, and then exchanges
/// bytes with the guest. To serve port 1024 for the guest, a host process listens on the path
/// followed by `_1024`.
///
/// The backend never blocks. Clients are refused if no descriptor is left for them. Dropping the
/// backend removes the file of its socket, if it is still the same file.
///
/// For messages, see [`UnixSeqpacketBackend`](crate::UnixSeqpacketBackend).
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
/// // A host process connects to the guest ...
/// let client = UnixStream::connect(&path)?;
/// let device = backend.accept()?;
///
/// // ... and the guest connects to a host process.
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
    /// Logs a warning if the path is too long to leave room for the suffix of every port: the
    /// guest's connections to ports with more digits are then refused.
    ///
    /// # Errors
    ///
    /// The message of each error names the path.
    ///
    /// - `AddrInUse`: another process listens on the path, or the path exists and is not a socket.
    ///   Also if another backend or listener of this process is bound to one of this guest's ports,
    ///   or if `path` would be a port of another guest of this process.
    /// - Any other error comes from the operating system, for example `NotFound` if the directory
    ///   does not exist, or `InvalidInput` if the path is longer than 107 bytes.
    pub fn bind(path: impl AsRef<Path>) -> io::Result<Self> {
        Self::bind_with(path, SocketAccess::default())
    }

    /// Like [`bind`](Self::bind), with these permissions for the socket's file.
    ///
    /// # Errors
    ///
    /// As for [`bind`](Self::bind). Also `InvalidInput` for a mode above `0o777`, and errors of the
    /// operating system when it sets the permissions.
    pub fn bind_with(path: impl AsRef<Path>, access: SocketAccess) -> io::Result<Self> {
        Self::open(path.as_ref(), Source::Bind(access))
    }

    /// Takes over a stream socket that already listens on `path`, as a service manager passes it.
    /// Clients that are already waiting are served. The backend does not remove the socket's file.
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
    /// `InvalidInput` if `socket` is not a listening Unix stream socket, and the errors of
    /// [`bind`](Self::bind) for conflicts with other names in this process.
    pub fn from_socket(socket: OwnedFd, path: impl AsRef<Path>) -> io::Result<Self> {
        Self::open(path.as_ref(), Source::Socket(socket))
    }

    /// Like [`bind_with`](Self::bind_with), for clients that can pass descriptors.
    pub(crate) fn bind_for_files(path: &Path, access: SocketAccess) -> io::Result<Self> {
        Self::open(path, Source::BindForFiles(access))
    }

    /// Like [`from_socket`](Self::from_socket), for clients that can pass descriptors.
    pub(crate) fn from_socket_for_files(socket: OwnedFd, path: &Path) -> io::Result<Self> {
        Self::open(path, Source::SocketForFiles(socket))
    }

    /// Accepts the next client. Its socket is non-blocking.
    pub(crate) fn accept_client(&mut self) -> io::Result<GuardedSocket> {
        self.clients.accept()
    }

    fn open(path: &Path, source: Source) -> io::Result<Self> {
        let clients = ClientListener::open(path, source, SocketType::STREAM, path)?;
        let backend = Self { clients };
        let longest = backend.service_path(u32::MAX);
        if SocketAddr::from_pathname(&longest).is_err() {
            log::warn!(
                "{} is too long: no process can listen on {}, because a socket path can have at \
                 most 107 bytes; use a shorter path",
                path.display(),
                longest.display()
            );
        }
        Ok(backend)
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
    UnixBackend, clients
);

impl VsockBackend for UnixBackend {
    /// # Errors
    ///
    /// - `WouldBlock`: no client is waiting.
    /// - `EMFILE`, `ENFILE`: no descriptor is left, and waiting clients were refused.
    /// - Any other error comes from the operating system.
    fn accept(&mut self) -> io::Result<Box<dyn VsockStream>> {
        let socket = self.accept_client()?;
        Ok(Box::new(UnixVsockStream::over(socket)))
    }

    /// # Errors
    ///
    /// - `NotFound`, `ConnectionRefused`: no process serves the port.
    /// - `WouldBlock`: the backlog of the host process is full; try again later.
    /// - Any other error comes from the operating system.
    fn connect(&self, dst_port: u32) -> io::Result<Box<dyn VsockStream>> {
        let socket = GuardedSocket::dial(&self.service_path(dst_port), SocketType::STREAM)?;
        Ok(Box::new(UnixVsockStream::over(socket)))
    }

    /// Identifies the listener by the file of its socket: device, inode and creation time. The
    /// creation time is needed because inodes are reused.
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
    fn t135_the_file_of_its_socket_identifies_a_listener() {
        let dir = TempDir::new().unwrap();
        let backend = UnixBackend::bind(dir.path().join("vm")).unwrap();
        let path = backend.service_path(5);
        assert_eq!(backend.listener(5), None);
        let first = UnixListener::bind(&path).unwrap();
        let met = backend.listener(5);
        assert!(met.is_some());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        assert_eq!(backend.listener(5), met, "new permissions do not change it");
        let other = backend.service_path(6);
        symlink(&path, &other).unwrap();
        assert_eq!(backend.listener(6), met, "a link leads to the same file");
        fs::rename(&path, dir.path().join("moved")).unwrap();
        let _second = UnixListener::bind(&path).unwrap();
        assert_ne!(backend.listener(5), met);
        drop(first);
    }
}
