// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Listening sockets that the service manager passes to the program at its start, as systemd does
//! (`sd_listen_fds`). Each has a descriptor number, from 3 on, and a name.
//!
//! The name decides the purpose of a socket: `frontend`, `uds` or `seqpacket`, followed by `-CID`
//! if there are several guests. With any other name, the path and the type of the socket decide,
//! because all sockets of a `.socket` unit have the same name.

use std::env;
use std::io;
use std::ops::Range;
use std::os::fd::{OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::process;

use rustix::net::SocketType;
use thiserror::Error;
use vsock_vhost_user::SocketNames;

use crate::program::counted::counted;
use crate::program::passed_fd;

/// The number of the first descriptor.
const FIRST: RawFd = 3;

/// The maximum number of sockets: three for each of 4,096 guests, far more than a process serves.
const MOST: RawFd = 3 * 4096;

/// The purpose of a socket.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Role {
    /// Connections from the VMM.
    Frontend,
    /// Streams of host processes.
    Uds,
    /// Messages of host processes.
    Seqpacket,
}

impl Role {
    const fn name(self) -> &'static str {
        match self {
            Self::Frontend => "frontend",
            Self::Uds => "uds",
            Self::Seqpacket => "seqpacket",
        }
    }

    /// Returns the name of the socket for one of several guests.
    fn name_for(self, cid: u64) -> String {
        format!("{}-{cid}", self.name())
    }

    const fn socket_type(self) -> SocketType {
        match self {
            Self::Frontend | Self::Uds => SocketType::STREAM,
            Self::Seqpacket => SocketType::SEQPACKET,
        }
    }
}

/// An error with the sockets that the service manager passed.
#[derive(Debug, Error)]
pub(crate) enum HandedOverError {
    #[error("invalid value {0:?} for LISTEN_FDS: expected a number from 0 to {MOST}")]
    Count(String),
    #[error(
        "LISTEN_FDNAMES has {} and LISTEN_FDS is {count}: expected a name for each socket",
        counted(names, "name")
    )]
    Names { names: usize, count: usize },
    #[error(
        "descriptor {0} is not open, although LISTEN_FDS includes it; pass a socket with this \
         number, or unset LISTEN_FDS"
    )]
    Closed(RawFd),
    #[error("cannot take over descriptor {number} from LISTEN_FDS")]
    Failed { number: RawFd, source: io::Error },
    #[error(
        "the socket named {name} is not a listening Unix socket: expected ListenStream= or \
         ListenSequentialPacket= with a path, and Accept=no"
    )]
    NoListener { name: String },
    #[error(
        "the socket named {name} belongs to no guest: expected FileDescriptorName=frontend, uds or \
         seqpacket, followed by -CID if there are several guests; or the path of a guest's \
         --socket, its --uds-path, or its --uds-path followed by _seqpacket \
         (ListenSequentialPacket=)"
    )]
    Unused { name: String },
}

/// A socket that was passed.
#[derive(Debug)]
struct Socket {
    name: String,
    /// The path, if the socket has one in the file system.
    path: Option<PathBuf>,
    socket_type: SocketType,
    fd: OwnedFd,
}

/// The guest for which a socket is wanted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Guest {
    /// The program's only guest, with this CID.
    Only(u64),
    /// One of several guests, with this CID.
    OneOfSeveral(u64),
}

/// The passed sockets that no device has taken yet.
#[derive(Debug, Default)]
pub(crate) struct HandedOver {
    sockets: Vec<Socket>,
}

impl HandedOver {
    /// Takes the sockets that the environment announces, if `LISTEN_PID` names this process. Call
    /// this before the program opens any file: see [`passed_fd::take`].
    pub(crate) fn from_env() -> Result<Self, HandedOverError> {
        let variable = |name| env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        let pid = variable("LISTEN_PID").and_then(|pid| pid.parse().ok());
        let Some(count) = variable("LISTEN_FDS").filter(|_| pid == Some(process::id())) else {
            return Ok(Self::default());
        };
        let numbers = numbers(&count)?;
        let names = names(variable("LISTEN_FDNAMES").as_deref(), numbers.len())?;
        let sockets = numbers.zip(names);
        let sockets = sockets.map(|(number, name)| Socket::new(take(number)?, name));
        Ok(Self {
            sockets: sockets.collect::<Result<_, _>>()?,
        })
    }

    /// Returns the socket for a guest and a purpose, if one was passed. It has the right name, or
    /// listens on `path`.
    pub(crate) fn take(&mut self, role: Role, guest: Guest, path: &Path) -> Option<OwnedFd> {
        let named = |socket: &Socket| match guest {
            Guest::Only(cid) => socket.name == role.name() || socket.name == role.name_for(cid),
            Guest::OneOfSeveral(cid) => socket.name == role.name_for(cid),
        };
        let path = SocketNames::one(path);
        let there = |socket: &Socket| {
            let names = socket.path.as_deref().map(SocketNames::one);
            socket.socket_type == role.socket_type()
                && names.is_some_and(|names| names.overlaps(&path))
        };
        let sockets = &mut self.sockets;
        let found = sockets.iter().position(named);
        let found = found.or_else(|| sockets.iter().position(there))?;
        Some(sockets.remove(found).fd)
    }

    /// Checks that all sockets were taken: clients of an unused one would never be answered.
    pub(crate) fn finish(self) -> Result<(), HandedOverError> {
        match self.sockets.into_iter().next() {
            None => Ok(()),
            Some(Socket { name, .. }) => Err(HandedOverError::Unused { name }),
        }
    }
}

impl Socket {
    fn new(fd: OwnedFd, name: String) -> Result<Self, HandedOverError> {
        let Some((socket_type, path)) = passed_fd::listener(&fd) else {
            return Err(HandedOverError::NoListener { name });
        };
        Ok(Self {
            name,
            path,
            socket_type,
            fd,
        })
    }
}

/// Parses the number of sockets; returns their descriptor numbers.
fn numbers(count: &str) -> Result<Range<RawFd>, HandedOverError> {
    let parsed = count.parse().ok();
    let parsed: RawFd = parsed
        .filter(|count| (0..=MOST).contains(count))
        .ok_or_else(|| HandedOverError::Count(count.to_owned()))?;
    Ok(FIRST..FIRST + parsed)
}

/// Parses the names of the sockets.
fn names(text: Option<&str>, count: usize) -> Result<Vec<String>, HandedOverError> {
    let names: Vec<String> = match text {
        Some(text) => text.split(':').map(str::to_owned).collect(),
        // The name that systemd gives to sockets without one.
        None => vec!["unknown".to_owned(); count],
    };
    if names.len() == count || (count == 0 && text == Some("")) {
        Ok(names)
    } else {
        let names = names.len();
        Err(HandedOverError::Names { names, count })
    }
}

/// Takes the descriptor with this number, which the service manager passed.
fn take(number: RawFd) -> Result<OwnedFd, HandedOverError> {
    let taken = passed_fd::take(number);
    let taken = taken.map_err(|source| HandedOverError::Failed { number, source })?;
    taken.ok_or(HandedOverError::Closed(number))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use tempfile::TempDir;

    use super::*;

    fn listener(dir: &TempDir, file: &str, name: &str) -> Socket {
        let socket = UnixListener::bind(dir.path().join(file)).unwrap();
        Socket::new(socket.into(), name.to_owned()).unwrap()
    }

    #[test]
    fn the_name_or_the_path_decides_the_purpose_of_a_socket() {
        let dir = TempDir::new().unwrap();
        let mut all = HandedOver {
            sockets: vec![
                listener(&dir, "a", "vm.socket"),
                listener(&dir, "b", "vm.socket"),
                listener(&dir, "c", "uds"),
                listener(&dir, "d", "frontend-4"),
            ],
        };
        let mut take = |role, guest, file: &str| {
            let taken = all.take(role, guest, &dir.path().join(file));
            let name = taken.map(|fd| Socket::new(fd, String::new()).unwrap().path.unwrap());
            name.map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        };
        let (only, three, four) = (
            Guest::Only(3),
            Guest::OneOfSeveral(3),
            Guest::OneOfSeveral(4),
        );
        assert_eq!(take(Role::Frontend, only, "b").as_deref(), Some("b"));
        assert_eq!(take(Role::Frontend, only, "b"), None, "it is taken");
        assert_eq!(take(Role::Seqpacket, only, "a"), None, "it is for streams");
        assert_eq!(take(Role::Uds, three, "x"), None, "it may be for the other");
        assert_eq!(take(Role::Frontend, four, "x").as_deref(), Some("d"));
        assert_eq!(take(Role::Uds, only, "x").as_deref(), Some("c"));
        let left = all.finish().unwrap_err().to_string();
        assert!(left.contains("named vm.socket"), "{left}");
    }

    #[test]
    fn a_socket_that_does_not_listen_is_refused() {
        let (connected, _peer) = UnixStream::pair().unwrap();
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        for socket in [OwnedFd::from(connected), tcp.into()] {
            let refused = Socket::new(socket, "frontend".to_owned()).unwrap_err();
            assert!(refused.to_string().contains("Accept=no"), "{refused}");
        }
    }

    #[test]
    fn invalid_counts_and_names_are_refused() {
        assert_eq!(numbers("2").unwrap(), 3..5);
        for text in ["", "-1", "x", "99999999", "12289"] {
            assert!(
                matches!(numbers(text), Err(HandedOverError::Count(_))),
                "{text}"
            );
        }
        assert_eq!(names(Some("a:b"), 2).unwrap(), ["a", "b"]);
        assert_eq!(names(None, 2).unwrap(), ["unknown"; 2]);
        assert!(matches!(
            names(Some("a"), 2),
            Err(HandedOverError::Names { names: 1, .. })
        ));
    }
}
