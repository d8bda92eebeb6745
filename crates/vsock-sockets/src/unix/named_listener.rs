// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Mode, fchmod};
use rustix::io::retry_on_intr;
use rustix::net::{SocketFlags, accept_with};

use super::guarded_socket::GuardedSocket;
use super::socket_file::SocketFile;
use super::socket_names::{NameClaim, SocketNames};

/// A listening Unix socket for anything else than the guest's connections: vhost-user, or an API of the VMM.
///
/// It has its name by the rules of a backend: what a dead process has left is replaced, the file is removed on
/// drop, if it is still the one that was made, and no guest of the process can reach it as a port.
///
/// ```
/// use std::io::{Read, Write};
/// use std::os::unix::net::UnixStream;
/// use vsock_sockets::NamedListener;
///
/// # fn main() -> std::io::Result<()> {
/// # let directory = std::env::temp_dir().join(format!("vsock-named-{}", std::process::id()));
/// # std::fs::create_dir_all(&directory)?;
/// let listener = NamedListener::bind(directory.join("api.sock"))?;
/// let handle = listener.handle();
/// let server = std::thread::spawn(move || handle.accept()?.write_all(b"hello"));
///
/// let mut text = String::new();
/// UnixStream::connect(listener.path())?.read_to_string(&mut text)?;
/// assert_eq!(text, "hello");
/// # server.join().unwrap()?;
/// # std::fs::remove_dir_all(&directory)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "dropping it removes the socket's file"]
pub struct NamedListener {
    /// Before the socket, without which another file might get the same inode.
    file: SocketFile,
    _claim: NameClaim,
    socket: Arc<GuardedSocket>,
}

/// The socket of a [`NamedListener`], for other threads. It listens for as long as one of them has it.
#[derive(Clone, Debug)]
pub struct ListenerHandle(Arc<GuardedSocket>);

impl NamedListener {
    /// Listens on `path`, with as many clients waiting as the system lets.
    ///
    /// # Errors
    ///
    /// As of [`UnixBackend::bind`](crate::UnixBackend::bind), but that the text does not name the path.
    pub fn bind(path: impl AsRef<Path>) -> io::Result<Self> {
        Self::with(path.as_ref(), GuardedSocket::for_files()?)
    }

    /// As [`bind`](Self::bind), for processes of this user alone: the socket's file has the mode 0600
    /// from its first moment on.
    ///
    /// # Errors
    ///
    /// As of [`bind`](Self::bind).
    pub fn bind_private(path: impl AsRef<Path>) -> io::Result<Self> {
        let socket = GuardedSocket::for_files()?;
        // The file that `bind` makes has the mode of the socket, less the umask.
        fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
        Self::with(path.as_ref(), socket)
    }

    fn with(path: &Path, socket: GuardedSocket) -> io::Result<Self> {
        let claim = NameClaim::new([SocketNames::one(path)])?;
        Ok(Self {
            file: SocketFile::bind(path, &socket)?,
            _claim: claim,
            socket: Arc::new(socket),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// The socket, for another thread.
    #[must_use]
    pub fn handle(&self) -> ListenerHandle {
        ListenerHandle(Arc::clone(&self.socket))
    }
}

impl ListenerHandle {
    /// Waits for a client, and takes it in. Its socket blocks, and may be sent descriptors.
    ///
    /// # Errors
    ///
    /// `InvalidInput` after a [shutdown](Self::shutdown), else those of the operating system.
    pub fn accept(&self) -> io::Result<UnixStream> {
        let accepted = retry_on_intr(|| accept_with(&*self.0, SocketFlags::CLOEXEC));
        Ok(accepted?.into())
    }

    /// Ends the wait of every thread in [`accept`](Self::accept), and all later ones.
    ///
    /// # Errors
    ///
    /// Those of the operating system.
    pub fn shutdown(&self) -> io::Result<()> {
        self.0.shutdown(std::net::Shutdown::Both)
    }
}

impl AsFd for ListenerHandle {
    /// For an event loop, which polls it for clients.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::os::unix::fs::PermissionsExt;
    use std::thread;

    use tempfile::TempDir;

    use super::*;
    use crate::UnixBackend;

    #[test]
    fn a_name_is_free_when_its_listener_goes_though_its_socket_is_open() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("vm_5");
        let listener = NamedListener::bind(&path).unwrap();
        let port_of = UnixBackend::bind(dir.path().join("vm"));
        assert_eq!(port_of.unwrap_err().kind(), ErrorKind::AddrInUse);
        let handle = listener.handle();
        drop(listener);
        assert!(!path.exists());
        let _next = NamedListener::bind(&path).unwrap();
        drop(handle);
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn a_private_socket_is_for_its_user_alone() {
        let dir = TempDir::new().unwrap();
        let listener = NamedListener::bind_private(dir.path().join("socket")).unwrap();
        let mode = listener.path().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        UnixStream::connect(listener.path()).unwrap();
    }

    #[test]
    fn a_shutdown_ends_the_wait_for_clients_for_ever() {
        let dir = TempDir::new().unwrap();
        let listener = NamedListener::bind(dir.path().join("socket")).unwrap();
        let handle = listener.handle();
        let waiter = thread::spawn(move || [(); 2].map(|()| handle.accept().unwrap_err().kind()));
        listener.handle().shutdown().unwrap();
        assert_eq!(waiter.join().unwrap(), [ErrorKind::InvalidInput; 2]);
    }
}
