// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{SocketFlags, SocketType, accept_with};

use super::guarded_socket::GuardedSocket;
use super::socket_access::SocketAccess;
use super::socket_file::SocketFile;
use super::socket_names::{NameClaim, SocketNames};

/// A listening Unix socket for other purposes than the guest's connections, such as vhost-user or
/// an API of the VMM.
///
/// Its name follows the same [rules](crate#socket-names) as a backend's. A file left behind by a
/// dead process is replaced. Dropping the listener removes the file, if it is still the same one.
/// No guest of the process can reach the socket as a port.
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
    /// Dropped before the socket: once the socket is closed, another file could get the same inode.
    file: SocketFile,
    _claim: NameClaim,
    socket: Arc<Listening>,
}

/// A handle to the socket of a [`NamedListener`], for other threads. The socket listens until the
/// listener and all its handles are dropped.
#[derive(Clone, Debug)]
pub struct ListenerHandle(Arc<Listening>);

/// A socket, and the way to wake the threads that wait for its clients.
#[derive(Debug)]
struct Listening {
    socket: GuardedSocket,
    end: End,
}

#[derive(Debug)]
enum End {
    /// Shutting down the socket, which belongs to this process.
    Shutdown,
    /// Writing to an eventfd, because a shutdown would also end the socket for the process that
    /// passed it.
    Eventfd(OwnedFd),
}

impl NamedListener {
    /// Listens on `path`, with the longest backlog that the system allows.
    ///
    /// # Errors
    ///
    /// As for [`UnixBackend::bind`](crate::UnixBackend::bind), except that the message does not
    /// name the path.
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
        Self::listen(path.as_ref(), access, GuardedSocket::for_files)
    }

    /// Like [`bind_with`](Self::bind_with), but a client that sends descriptors gets an error
    /// (`EPERM`), if the kernel can refuse them (Linux 6.16).
    ///
    /// Use this if clients have no reason to send any: closing a descriptor can block the thread
    /// that receives it.
    ///
    /// # Errors
    ///
    /// As for [`bind_with`](Self::bind_with).
    pub fn bind_without_files(path: impl AsRef<Path>, access: SocketAccess) -> io::Result<Self> {
        let socket = |flags| GuardedSocket::new(SocketType::STREAM, flags);
        Self::listen(path.as_ref(), access, socket)
    }

    fn listen(
        path: &Path,
        access: SocketAccess,
        socket: impl FnOnce(SocketFlags) -> Result<GuardedSocket, Errno>,
    ) -> io::Result<Self> {
        let claim = NameClaim::new([SocketNames::one(path)])?;
        let socket = socket(SocketFlags::empty())?;
        let file = SocketFile::bind(path, &socket, access)?;
        let end = End::Shutdown;
        Ok(Self::with(file, claim, Listening { socket, end }))
    }

    /// Takes over a stream socket that already listens on `path`, as a service manager passes it.
    /// The listener does not remove the file: that is left to the process that created the socket,
    /// which may also use it again.
    ///
    /// ```
    /// use std::os::unix::net::{UnixListener, UnixStream};
    /// use vsock_sockets::NamedListener;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// # let directory = std::env::temp_dir().join(format!("vsock-taken-{}", std::process::id()));
    /// # std::fs::create_dir_all(&directory)?;
    /// let path = directory.join("vhost.sock");
    /// let handed_over = UnixListener::bind(&path)?;
    /// let listener = NamedListener::from_socket(handed_over.into(), &path)?;
    /// let client = UnixStream::connect(&path)?;
    /// listener.handle().accept()?;
    /// drop(listener);
    /// assert!(path.exists());
    /// # std::fs::remove_dir_all(&directory)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// - `InvalidInput`: `socket` is not a listening Unix stream socket.
    /// - `AddrInUse`: `path` would be a port of a guest of this process, or another listener of
    ///   this process has the path.
    /// - Any other error comes from the operating system.
    pub fn from_socket(socket: OwnedFd, path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref();
        let claim = NameClaim::new([SocketNames::one(path)])?;
        let socket = GuardedSocket::shared(socket, SocketType::STREAM)?;
        let end = End::Eventfd(eventfd(0, EventfdFlags::CLOEXEC)?);
        let file = SocketFile::of_another(path);
        Ok(Self::with(file, claim, Listening { socket, end }))
    }

    fn with(file: SocketFile, claim: NameClaim, socket: Listening) -> Self {
        Self {
            file,
            _claim: claim,
            socket: Arc::new(socket),
        }
    }

    /// Returns the path on which the socket listens.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Returns a handle to the socket, for another thread.
    #[must_use]
    pub fn handle(&self) -> ListenerHandle {
        ListenerHandle(Arc::clone(&self.socket))
    }
}

impl ListenerHandle {
    /// Waits for a client and accepts it. The client's socket is blocking, and can receive
    /// descriptors unless the listener refuses them.
    ///
    /// # Errors
    ///
    /// `InvalidInput` after a [shutdown](Self::shutdown), and errors of the operating system.
    pub fn accept(&self) -> io::Result<UnixStream> {
        let Listening { socket, end } = &*self.0;
        loop {
            if let End::Eventfd(ended) = end {
                wait(socket, ended)?;
            }
            match retry_on_intr(|| accept_with(socket, SocketFlags::CLOEXEC)) {
                // Another process that shares the socket accepted the client first.
                Err(Errno::AGAIN) if matches!(end, End::Eventfd(_)) => {}
                accepted => return Ok(accepted?.into()),
            }
        }
    }

    /// Makes all current and future calls of [`accept`](Self::accept) return an error.
    ///
    /// # Errors
    ///
    /// Errors of the operating system.
    pub fn shutdown(&self) -> io::Result<()> {
        match &self.0.end {
            End::Shutdown => self.0.socket.shutdown(std::net::Shutdown::Both),
            // Nothing reads the eventfd, so it stays readable for every later wait.
            End::Eventfd(ended) => Ok(retry_on_intr(|| {
                rustix::io::write(ended, &1_u64.to_ne_bytes()).map(drop)
            })?),
        }
    }
}

impl AsFd for ListenerHandle {
    /// For polling: readable while a client waits to be accepted.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.socket.as_fd()
    }
}

/// Waits for a client. Returns `InvalidInput` after the end, as a socket that was shut down would.
fn wait(socket: &GuardedSocket, end: &OwnedFd) -> io::Result<()> {
    let mut fds = [
        PollFd::new(end, PollFlags::IN),
        PollFd::new(socket, PollFlags::IN),
    ];
    retry_on_intr(|| poll(&mut fds, None))?;
    if fds[0].revents().is_empty() {
        return Ok(());
    }
    let message = "the listener was shut down";
    Err(io::Error::new(ErrorKind::InvalidInput, message))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::sync::mpsc;
    use std::thread;

    use rustix::net::SendFlags;
    use tempfile::TempDir;

    use super::*;
    use crate::UnixBackend;
    use crate::unix::guarded_socket::tests::pass;

    #[test]
    fn dropping_a_listener_frees_its_name_even_if_a_handle_is_left() {
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
    fn a_passed_socket_stays_usable_for_the_process_that_created_it() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("socket");
        let manager = UnixListener::bind(&path).unwrap();
        for _service in 0..2 {
            let socket = manager.try_clone().unwrap().into();
            let listener = NamedListener::from_socket(socket, &path).unwrap();
            let handle = listener.handle();
            let (tell, accepted) = mpsc::channel();
            let server = thread::spawn(move || {
                tell.send(handle.accept().unwrap()).unwrap();
                handle.accept().unwrap_err().kind()
            });
            UnixStream::connect(&path).unwrap();
            accepted.recv().unwrap();
            listener.handle().shutdown().unwrap();
            assert_eq!(server.join().unwrap(), ErrorKind::InvalidInput);
            let _waits = UnixStream::connect(&path).unwrap();
            drop(listener);
            manager.accept().unwrap();
        }
        assert!(path.exists());
    }

    #[test]
    fn only_a_listening_stream_socket_is_taken_over() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("socket");
        let flags = SocketFlags::CLOEXEC;
        let messages = GuardedSocket::new(SocketType::SEQPACKET, flags).unwrap();
        let _file = SocketFile::bind(&path, &messages, SocketAccess::default()).unwrap();
        let messages = rustix::io::dup(&messages).unwrap();
        let (connected, _peer) = UnixStream::pair().unwrap();
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        for socket in [messages, connected.into(), tcp.into(), file.into()] {
            let refused = NamedListener::from_socket(socket, dir.path().join("other"));
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn t124_a_listener_can_refuse_files() {
        let dir = TempDir::new().unwrap();
        let (all, none) = (dir.path().join("all"), dir.path().join("none"));
        let access = SocketAccess::default();
        let socket = GuardedSocket::new(SocketType::STREAM, SocketFlags::CLOEXEC).unwrap();
        let can_refuse = !socket.may_bring_files();
        let file = std::fs::File::open("/dev/null").unwrap();
        for (listener, refuses) in [
            (NamedListener::bind_with(all, access).unwrap(), false),
            (
                NamedListener::bind_without_files(none, access).unwrap(),
                can_refuse,
            ),
        ] {
            let client = UnixStream::connect(listener.path()).unwrap();
            let sent = pass(&client, b"file", &file, SendFlags::empty());
            assert_eq!(sent.is_err(), refuses);
        }
    }

    #[test]
    fn a_shutdown_ends_all_waits_for_clients() {
        let dir = TempDir::new().unwrap();
        let listener = NamedListener::bind(dir.path().join("socket")).unwrap();
        let handle = listener.handle();
        let waiter = thread::spawn(move || [(); 2].map(|()| handle.accept().unwrap_err().kind()));
        listener.handle().shutdown().unwrap();
        assert_eq!(waiter.join().unwrap(), [ErrorKind::InvalidInput; 2]);
    }
}
