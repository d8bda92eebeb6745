// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The part of a Unix backend that deals with the file system: the listening socket for clients,
//! and the paths of services.

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

/// The listening socket for host processes that connect to the guest. It never blocks.
#[derive(Debug)]
pub(super) struct ClientListener {
    file: SocketFile,
    acceptor: Acceptor,
    /// The common prefix of the services' paths.
    base: PathBuf,
    _claim: NameClaim,
}

/// An error while opening a listening socket. Callers see it inside an [`io::Error`] of the
/// same kind, so its message includes the reason instead of exposing it as a source.
#[derive(Debug, Error)]
#[error("{}: {reason}", path.display())]
struct OpenError {
    path: PathBuf,
    reason: io::Error,
}

/// Adds the path to the message of an error.
pub(crate) fn at_path(path: &Path, reason: io::Error) -> io::Error {
    let path = path.to_owned();
    io::Error::new(reason.kind(), OpenError { path, reason })
}

/// The origin of a listening socket.
#[derive(Debug)]
pub(super) enum Source {
    /// A new socket, whose file gets these permissions.
    Bind(SocketAccess),
    /// Like `Bind`, for streams whose clients can pass descriptors.
    BindForFiles(SocketAccess),
    /// A socket that another process has passed.
    Socket(OwnedFd),
    /// Like `Socket`, for streams whose clients can pass descriptors.
    SocketForFiles(OwnedFd),
}

impl ClientListener {
    /// Listens on `path`. The guest reaches services that listen on `base` followed by `_` and a
    /// port.
    ///
    /// # Errors
    ///
    /// The errors of the operating system and of [`NameClaim::new`]. Their messages name the path.
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
        // Claim the names first: until this fails or the listener is dropped, no other socket of
        // this process can take them.
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

    /// Returns the path of the socket.
    pub(super) fn path(&self) -> &Path {
        self.file.path()
    }

    /// Returns a handle that can remove the socket's file before the listener is dropped.
    pub(super) fn file_remover(&self) -> SocketFileRemover {
        self.file.remover()
    }

    /// Returns the path on which a host process must listen to serve `port`.
    pub(super) fn service_path(&self, port: u32) -> PathBuf {
        with_suffix(&self.base, &port.to_string())
    }

    /// Identifies the listener that serves `port`.
    pub(super) fn listener_id(&self, port: u32) -> Option<ListenerId> {
        listener_id(&self.service_path(port))
    }

    /// Accepts the next client. Its socket is non-blocking too.
    pub(super) fn accept(&mut self) -> io::Result<GuardedSocket> {
        self.acceptor.accept()
    }
}

impl AsFd for ClientListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.acceptor.as_fd()
    }
}

/// Identifies the listener on a path by the file to which a connect would lead. If the file system
/// does not record creation times, device and inode must suffice.
pub(crate) fn listener_id(path: &Path) -> Option<ListenerId> {
    let file = fs::metadata(path).ok()?;
    let created = file.created().ok();
    let created = created.and_then(|created| created.duration_since(UNIX_EPOCH).ok());
    let created = created.unwrap_or(Duration::ZERO);
    let (seconds, nanos) = (created.as_secs(), created.subsec_nanos().into());
    Some(ListenerId::new([file.dev(), file.ino(), seconds, nanos]))
}

/// Returns `path` followed by `_` and the suffix.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = OsString::from(path);
    path.push("_");
    path.push(suffix);
    path.into()
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::os::unix::net::UnixStream;

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn every_waiting_client_is_accepted_and_then_none_until_the_next() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("vm");
        let source = Source::Bind(SocketAccess::default());
        let mut listener = ClientListener::open(&path, source, SocketType::STREAM, &path).unwrap();
        for count in [3, 1] {
            let _clients: Vec<_> = (0..count)
                .map(|_| UnixStream::connect(listener.path()).unwrap())
                .collect();
            for _ in 0..count {
                listener.accept().unwrap();
            }
            let none = listener.accept().unwrap_err();
            assert_eq!(none.kind(), ErrorKind::WouldBlock);
        }
    }
}
