// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What both backends have of the file system: the socket for clients, and the paths of services.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use rustix::net::{SocketFlags, SocketType};
use thiserror::Error;
use vsock_backend_api::ListenerId;

use super::acceptor::Acceptor;
use super::guarded_socket::GuardedSocket;
use super::socket_access::SocketAccess;
use super::socket_file::{SocketFile, SocketFileRemover};
use super::socket_names::{NameClaim, SocketNames};

/// The listening socket for host processes that connect to the guest. It never waits.
#[derive(Debug)]
pub(super) struct ClientListener {
    file: SocketFile,
    acceptor: Acceptor,
    /// What the paths of services begin with.
    base: PathBuf,
    _claim: NameClaim,
}

/// Why a path cannot be listened on. An [`io::Error`] around it has the reason's kind, and is all
/// that a caller has: so its text says both.
#[derive(Debug, Error)]
#[error("{}: {reason}", path.display())]
struct OpenError {
    path: PathBuf,
    reason: io::Error,
}

/// The error with the path in its text.
pub(crate) fn at_path(path: &Path, reason: io::Error) -> io::Error {
    let path = path.to_owned();
    io::Error::new(reason.kind(), OpenError { path, reason })
}

/// Where a listening socket comes from.
#[derive(Debug)]
pub(super) enum Source {
    /// It is made, and its file has these permissions.
    Bind(SocketAccess),
    /// As `Bind`, for streams whose clients may pass files.
    BindForFiles(SocketAccess),
    /// Another process has handed it over.
    Socket(OwnedFd),
    /// As `Socket`, for streams whose clients may pass files.
    SocketForFiles(OwnedFd),
}

impl ClientListener {
    /// Listens on `path`. The guest reaches what listens on `base` followed by a port.
    ///
    /// # Errors
    ///
    /// Those of the operating system, and of [`NameClaim::new`], with the path in their text.
    pub(super) fn open(
        path: &Path,
        source: Source,
        socket_type: SocketType,
        base: &Path,
    ) -> io::Result<Self> {
        Self::listen(path, source, socket_type, base).map_err(|reason| at_path(path, reason))
    }

    fn listen(
        path: &Path,
        source: Source,
        socket_type: SocketType,
        base: &Path,
    ) -> io::Result<Self> {
        let claim = NameClaim::new([SocketNames::one(path), SocketNames::each_port(base)])?;
        let (listener, file) = match source {
            Source::Bind(access) => {
                let listener = GuardedSocket::new(socket_type, SocketFlags::NONBLOCK)?;
                let file = SocketFile::bind(path, &listener, access)?;
                (listener, file)
            }
            Source::BindForFiles(access) => {
                let listener = GuardedSocket::for_files(SocketFlags::NONBLOCK)?;
                let file = SocketFile::bind(path, &listener, access)?;
                (listener, file)
            }
            Source::Socket(socket) => {
                let listener = GuardedSocket::shared(socket, socket_type)?;
                (listener, SocketFile::of_another(path))
            }
            Source::SocketForFiles(socket) => {
                let listener = GuardedSocket::shared_for_files(socket)?;
                (listener, SocketFile::of_another(path))
            }
        };
        Ok(Self {
            file,
            acceptor: Acceptor::new(listener)?,
            base: base.to_owned(),
            _claim: claim,
        })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        self.file.path()
    }

    /// What can remove the socket's file before the backend does.
    pub(super) fn file_remover(&self) -> SocketFileRemover {
        self.file.remover()
    }

    /// Where the host process that serves `port` is expected to listen.
    pub(super) fn service_path(&self, port: u32) -> PathBuf {
        with_suffix(&self.base, &port.to_string())
    }

    /// The process that listens there.
    pub(super) fn listener_id(&self, port: u32) -> Option<ListenerId> {
        listener_id(&self.service_path(port))
    }

    /// Takes in the next client, whose socket does not block either.
    pub(super) fn accept(&mut self) -> io::Result<GuardedSocket> {
        self.acceptor.accept()
    }
}

impl AsFd for ClientListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.acceptor.as_fd()
    }
}

/// The process that listens on a path, by the file that a connect would find there. Where the file
/// system does not know when it was made, device and inode have to do.
pub(crate) fn listener_id(path: &Path) -> Option<ListenerId> {
    let file = fs::metadata(path).ok()?;
    let made = file.created().ok();
    let made = made.and_then(|made| made.duration_since(UNIX_EPOCH).ok());
    let made = made.unwrap_or(Duration::ZERO);
    let (seconds, nanos) = (made.as_secs(), made.subsec_nanos().into());
    Some(ListenerId::new([file.dev(), file.ino(), seconds, nanos]))
}

/// `path` followed by `_suffix`.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = OsString::from(path);
    path.push("_");
    path.push(suffix);
    path.into()
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use rustix::io::{Errno, dup};
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    use tempfile::TempDir;
    use vsock_compliance::poll::Stopwatch;

    use super::*;
    use crate::unix::acceptor::REFUSALS;
    use crate::unix::guarded_socket::tests::{SOON, age, alone, pass_lingering};

    /// Leaves the process without a descriptor to open.
    fn use_up(listener: &ClientListener) -> Rlimit {
        let limit = getrlimit(Resource::Nofile);
        let next = u64::try_from(dup(listener).unwrap().as_raw_fd()).unwrap();
        let current = Some(next);
        set(Rlimit { current, ..limit });
        limit
    }

    fn set(limit: Rlimit) {
        setrlimit(Resource::Nofile, limit).unwrap();
    }

    fn clients(path: &Path, count: usize) -> Vec<UnixStream> {
        (0..count)
            .map(|_| {
                let client = UnixStream::connect(path).unwrap();
                client.set_nonblocking(true).unwrap();
                client
            })
            .collect()
    }

    fn refused(clients: &[UnixStream]) -> usize {
        let waits = |mut client: &UnixStream| match client.read(&mut [0]) {
            Ok(end) => end == 1,
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        };
        clients.iter().filter(|client| !waits(client)).count()
    }

    /// A listener, its waiting clients, and its directory.
    fn waiting(count: usize) -> (ClientListener, Vec<UnixStream>, TempDir) {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("vm");
        let source = Source::Bind(SocketAccess::default());
        let listener = ClientListener::open(&path, source, SocketType::STREAM, &path).unwrap();
        (listener, clients(&path, count), dir)
    }

    #[track_caller]
    fn assert_refuses(listener: &mut ClientListener, clients: &[UnixStream], expected: usize) {
        let error = listener.accept().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::MFILE.raw_os_error()));
        assert_eq!(refused(clients), expected);
    }

    #[test]
    fn one_call_refuses_so_many_clients_and_no_more_because_others_have_their_turn() {
        if !alone(
            "client_listener::tests::one_call_refuses_so_many_clients_and_no_more_because_others_have_their_turn",
        ) {
            return;
        }
        let (mut listener, clients, _dir) = waiting(REFUSALS + 2);
        let limit = use_up(&listener);
        for expected in [REFUSALS, REFUSALS + 2] {
            assert_refuses(&mut listener, &clients, expected);
        }
        set(limit);
        let _client = UnixStream::connect(listener.path()).unwrap();
        listener.accept().unwrap();
    }

    #[test]
    fn t124_a_client_that_is_refused_with_a_file_in_its_queue_delays_no_other() {
        if !alone(
            "client_listener::tests::t124_a_client_that_is_refused_with_a_file_in_its_queue_delays_no_other",
        ) {
            return;
        }
        age();
        let (mut listener, clients, _dir) = waiting(1);
        let peer = pass_lingering(&clients[0], b"x");
        let limit = use_up(&listener);
        let started = Stopwatch::start();
        assert_refuses(&mut listener, &clients, 1);
        assert!(started.elapsed() < SOON);
        set(limit);
        drop(peer);
    }
}
