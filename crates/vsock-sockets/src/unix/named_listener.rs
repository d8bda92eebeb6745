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

/// A listening Unix socket for anything else than the guest's connections: vhost-user, or an API of
/// the VMM.
///
/// It has its name by the rules of a backend: what a dead process has left is replaced, the file is
/// removed on drop, if it is still the one that was made, and no guest of the process can reach it
/// as a port.
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
    socket: Arc<Listening>,
}

/// The socket of a [`NamedListener`], for other threads. It listens for as long as one of them has
/// it.
#[derive(Clone, Debug)]
pub struct ListenerHandle(Arc<Listening>);

/// A socket, and how the threads that wait for its clients are told of the end.
#[derive(Debug)]
struct Listening {
    socket: GuardedSocket,
    end: End,
}

#[derive(Debug)]
enum End {
    /// By a shutdown of the socket, which is this process's own.
    Shutdown,
    /// By an eventfd: a shutdown would end the socket for the process that has handed it over, too.
    Told(OwnedFd),
}

impl NamedListener {
    /// Listens on `path`, with as many clients waiting as the system lets.
    ///
    /// # Errors
    ///
    /// As of [`UnixBackend::bind`](crate::UnixBackend::bind), but that the text does not name the
    /// path.
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
        let path = path.as_ref();
        let claim = NameClaim::new([SocketNames::one(path)])?;
        let socket = GuardedSocket::for_files(SocketFlags::empty())?;
        let file = SocketFile::bind(path, &socket, access)?;
        let end = End::Shutdown;
        Ok(Self::with(file, claim, Listening { socket, end }))
    }

    /// Takes over a socket of streams that listens on `path` already, as a service manager hands it
    /// over. Its file stays: the process that has made it removes it, and may listen with the
    /// socket again.
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
    /// - `InvalidInput`: it is no Unix socket of streams that listens.
    /// - `AddrInUse`: a guest of this process reaches `path` as one of its ports, or another
    ///   listener of the process has it.
    /// - Anything else comes from the operating system.
    pub fn from_socket(socket: OwnedFd, path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref();
        let claim = NameClaim::new([SocketNames::one(path)])?;
        let socket = GuardedSocket::shared(socket, SocketType::STREAM)?;
        let end = End::Told(eventfd(0, EventfdFlags::CLOEXEC)?);
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
        let Listening { socket, end } = &*self.0;
        loop {
            if let End::Told(told) = end {
                wait(socket, told)?;
            }
            match retry_on_intr(|| accept_with(socket, SocketFlags::CLOEXEC)) {
                // Another process that has the socket was faster.
                Err(Errno::AGAIN) if matches!(end, End::Told(_)) => {}
                accepted => return Ok(accepted?.into()),
            }
        }
    }

    /// Ends the wait of every thread in [`accept`](Self::accept), and all later ones.
    ///
    /// # Errors
    ///
    /// Those of the operating system.
    pub fn shutdown(&self) -> io::Result<()> {
        match &self.0.end {
            End::Shutdown => self.0.socket.shutdown(std::net::Shutdown::Both),
            End::Told(told) => Ok(retry_on_intr(|| {
                rustix::io::write(told, &1_u64.to_ne_bytes()).map(drop)
            })?),
        }
    }
}

impl AsFd for ListenerHandle {
    /// For an event loop, which polls it for clients.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.socket.as_fd()
    }
}

/// Waits for a client; `InvalidInput` after the end, as of a socket that was shut down.
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
    fn a_socket_that_was_handed_over_serves_and_stays_for_the_one_that_has_made_it() {
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
    fn what_does_not_listen_for_streams_is_not_taken_over() {
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
    fn a_shutdown_ends_the_wait_for_clients_for_ever() {
        let dir = TempDir::new().unwrap();
        let listener = NamedListener::bind(dir.path().join("socket")).unwrap();
        let handle = listener.handle();
        let waiter = thread::spawn(move || [(); 2].map(|()| handle.accept().unwrap_err().kind()));
        listener.handle().shutdown().unwrap();
        assert_eq!(waiter.join().unwrap(), [ErrorKind::InvalidInput; 2]);
    }
}
