// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use rustix::net::{SocketFlags, SocketType};
use thiserror::Error;

use super::rights::Guarded;
use crate::claim::NameClaim;
use crate::names::SocketNames;
use crate::socket_file::{Remover, SocketFile};

/// Where host processes knock that want to reach the guest: a listening socket that never waits.
#[derive(Debug)]
pub(super) struct Door {
    /// A descriptor that stands for nothing. When there is no other left, its place serves to refuse
    /// the clients that wait, who would wait for ever; and, after it, to remove the file.
    spare: Option<OwnedFd>,
    file: SocketFile,
    listener: Guarded,
    _names: NameClaim,
}

/// Clients that are refused in one go when there is no descriptor for them. Others have their turn after
/// that, whatever comes in: the rest is refused in the next go.
const REFUSALS: usize = 64;

/// Why nobody can listen on a path. An [`io::Error`] around it has the reason's kind, and is all that a
/// caller has: so its text says both.
#[derive(Debug, Error)]
#[error("{}: {reason}", path.display())]
struct OpenError {
    path: PathBuf,
    reason: io::Error,
}

impl Door {
    /// Listens on `path`. The guest reaches what listens on `base` followed by a port.
    ///
    /// # Errors
    ///
    /// Those of the operating system, and of [`NameClaim::new`], with the path in their text.
    pub(super) fn open(path: &Path, socket_type: SocketType, base: &Path) -> io::Result<Self> {
        Self::listen(path, socket_type, base).map_err(|reason| {
            let path = path.to_owned();
            io::Error::new(reason.kind(), OpenError { path, reason })
        })
    }

    fn listen(path: &Path, socket_type: SocketType, base: &Path) -> io::Result<Self> {
        let names = NameClaim::new([SocketNames::one(path), SocketNames::each_port(base)])?;
        let listener = Guarded::new(socket_type, SocketFlags::NONBLOCK)?;
        let file = SocketFile::bind(path, &listener)?;
        let spare = Some(spare()?);
        Ok(Self {
            spare,
            file,
            listener,
            _names: names,
        })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        self.file.path()
    }

    /// What can remove the socket's file before the backend does.
    pub(super) fn remover(&self) -> Remover {
        self.file.remover()
    }

    /// Takes in the next client, whose socket does not block either.
    pub(super) fn accept(&mut self) -> io::Result<Guarded> {
        loop {
            match self.listener.accept() {
                // The one client is gone; there may be others.
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(error @ (Errno::MFILE | Errno::NFILE)) => {
                    self.refuse_waiting();
                    return Err(error.into());
                }
                Err(error) => return Err(error.into()),
                Ok(socket) => return Ok(socket),
            }
        }
    }

    /// Accepts in the place of the spare descriptor, and hangs up.
    fn refuse_waiting(&mut self) {
        self.spare = None;
        for _ in 0..REFUSALS {
            match self.listener.accept() {
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(_) => break,
                Ok(client) => drop(client),
            }
        }
        // If the place is taken by now, the next failure tries again.
        self.spare = spare().ok();
    }
}

impl AsFd for Door {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl AsRawFd for Door {
    fn as_raw_fd(&self) -> RawFd {
        self.listener.as_raw_fd()
    }
}

fn spare() -> io::Result<OwnedFd> {
    Ok(eventfd(0, EventfdFlags::CLOEXEC)?)
}

/// A path with `_suffix` behind it.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = OsString::from(path);
    path.push("_");
    path.push(suffix);
    path.into()
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read};
    use std::os::unix::net::UnixStream;

    use rustix::io::dup;
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    use tempfile::TempDir;
    use vsock_compliance::poll::Stopwatch;

    use super::*;
    use crate::unix::rights::tests::{SOON, age, alone, pass_lingering};

    /// Leaves the process without a descriptor to open.
    fn use_up(door: &Door) -> Rlimit {
        let limit = getrlimit(Resource::Nofile);
        let next = u64::try_from(dup(&door.listener).unwrap().as_raw_fd()).unwrap();
        set(Rlimit {
            current: Some(next),
            ..limit
        });
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

    #[test]
    fn one_go_refuses_so_many_clients_and_no_more_because_others_have_their_turn() {
        if !alone(
            "door::tests::one_go_refuses_so_many_clients_and_no_more_because_others_have_their_turn",
        ) {
            return;
        }
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("door");
        let mut door = Door::open(&path, SocketType::STREAM, &path).unwrap();
        let clients = clients(door.path(), REFUSALS + 2);
        let limit = use_up(&door);
        for expected in [REFUSALS, REFUSALS + 2] {
            let error = door.accept().unwrap_err();
            assert_eq!(error.raw_os_error(), Some(Errno::MFILE.raw_os_error()));
            assert_eq!(refused(&clients), expected);
        }
        set(limit);
        let _client = UnixStream::connect(door.path()).unwrap();
        door.accept().unwrap();
    }

    #[test]
    fn t124_a_client_that_is_refused_with_a_file_in_its_queue_delays_no_other() {
        if !alone(
            "door::tests::t124_a_client_that_is_refused_with_a_file_in_its_queue_delays_no_other",
        ) {
            return;
        }
        age();
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("door");
        let mut door = Door::open(&path, SocketType::STREAM, &path).unwrap();
        let clients = clients(door.path(), 1);
        let peer = pass_lingering(&clients[0], b"x");
        let limit = use_up(&door);
        let started = Stopwatch::start();
        let error = door.accept().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::MFILE.raw_os_error()));
        assert_eq!(refused(&clients), 1);
        assert!(started.elapsed() < SOON);
        set(limit);
        drop(peer);
    }
}
