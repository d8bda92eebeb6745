// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Sockets for VMMs that the program inherits by descriptor number (`--fd`), as QEMU's conventions
//! for back-ends define.
//!
//! Management software passes either a listening socket (as libvirt does for virtiofsd) or one end
//! of a socket pair whose other end is the VMM's (as libvirt does for vhost-user-gpu). Both are
//! supported.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use rustix::net::sockopt::{socket_domain, socket_type};
use rustix::net::{AddressFamily, SocketType, getpeername};
use thiserror::Error;
use vsock_vhost_user::NamedListener;

use super::args::Vm;
use super::passed_fd;

/// An error with an inherited descriptor.
#[derive(Debug, Error)]
pub(crate) enum InheritedError {
    #[error(
        "--fd {0}: the descriptor is not open; pass a socket with this number, or use --socket"
    )]
    NotOpen(RawFd),
    #[error("--fd {0}: expected a Unix stream socket that listens or is connected to a VMM")]
    NoSocket(RawFd),
    #[error("--fd {0}: cannot take over the descriptor")]
    Failed(RawFd, #[source] io::Error),
}

/// The socket on which a device serves its VMMs.
#[derive(Debug)]
pub(crate) enum FrontendSocket {
    Listening(NamedListener),
    /// It serves only this VMM.
    Connected(UnixStream),
}

/// A socket for VMMs, as it was inherited.
#[derive(Debug)]
enum Socket {
    /// A listening socket and its path. Without a path in the file system, it has one in a
    /// directory that does not exist.
    Listening(OwnedFd, PathBuf),
    /// A socket that is connected to a VMM.
    Connected(UnixStream),
}

/// The inherited sockets that no device has taken yet, by number.
#[derive(Debug)]
pub(crate) struct Inherited(BTreeMap<RawFd, Socket>);

impl Inherited {
    /// Takes the sockets that these virtual machines name. Call this before the program opens any
    /// file: see [`passed_fd::take`].
    pub(crate) fn take(vms: &[Vm]) -> Result<Self, InheritedError> {
        let numbers = vms.iter().filter_map(|vm| vm.fd);
        let sockets = numbers.map(|number| Ok((number, Socket::take(number)?)));
        sockets.collect::<Result<_, _>>().map(Self)
    }

    /// Returns the socket with this number.
    pub(crate) fn frontend(&mut self, number: RawFd) -> Result<FrontendSocket, InheritedError> {
        let socket = self.0.remove(&number);
        match socket.ok_or(InheritedError::NotOpen(number))? {
            Socket::Connected(vmm) => Ok(FrontendSocket::Connected(vmm)),
            Socket::Listening(socket, path) => {
                let listener = NamedListener::from_socket(socket, path);
                let listener = listener.map_err(|error| InheritedError::Failed(number, error));
                listener.map(FrontendSocket::Listening)
            }
        }
    }
}

impl Socket {
    fn take(number: RawFd) -> Result<Self, InheritedError> {
        let socket = passed_fd::take(number);
        let socket = socket.map_err(|error| InheritedError::Failed(number, error))?;
        let socket = socket.ok_or(InheritedError::NotOpen(number))?;
        if let Some((SocketType::STREAM, path)) = passed_fd::listener(&socket) {
            // A descriptor is not a directory, so no other socket can have this path.
            let nowhere = || PathBuf::from(format!("/proc/self/fd/{number}/socket"));
            return Ok(Self::Listening(socket, path.unwrap_or_else(nowhere)));
        }
        let is_stream = socket_domain(&socket) == Ok(AddressFamily::UNIX)
            && socket_type(&socket) == Ok(SocketType::STREAM);
        if !is_stream || getpeername(&socket).is_err() {
            return Err(InheritedError::NoSocket(number));
        }
        let vmm = UnixStream::from(socket);
        // The flag belongs to the socket, and the process that passed it may have set it.
        vmm.set_nonblocking(false)
            .map_err(|error| InheritedError::Failed(number, error))?;
        Ok(Self::Connected(vmm))
    }
}
