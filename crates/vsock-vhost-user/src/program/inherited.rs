// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Sockets for VMMs that the program inherits, by number (`--fd`), as QEMU's conventions for
//! back-ends have it. Management software passes one that listens (libvirt to virtiofsd), or one
//! end of a pair whose other end is the VMM's (libvirt to a vhost-user-gpu): both are taken.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use rustix::net::sockopt::{socket_acceptconn, socket_domain, socket_type};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, getpeername, getsockname};
use thiserror::Error;
use vsock_vhost_user::{NamedListener, VhostUserVsockBuilder};

use super::args::Vm;
use super::passed_fd;

/// Why a descriptor cannot be used.
#[derive(Debug, Error)]
pub(crate) enum InheritedError {
    #[error("--fd {0}: no such descriptor was passed; pass one, or give --socket PATH")]
    NotOpen(RawFd),
    #[error("--fd {0}: expected a Unix socket of streams that listens or is connected to a VMM")]
    NoSocket(RawFd),
    #[error("--fd {0}: it cannot be taken over")]
    Failed(RawFd, #[source] io::Error),
}

/// A socket for VMMs.
#[derive(Debug)]
enum Socket {
    /// It listens here; in the absence of a file, in no directory that there is.
    Listening(OwnedFd, PathBuf),
    Connected(UnixStream),
}

/// Those that no device has so far.
#[derive(Debug)]
pub(crate) struct Inherited(BTreeMap<RawFd, Socket>);

impl Inherited {
    /// Takes those of these virtual machines. To be called before the program opens anything, which
    /// could get the number of a descriptor that was not passed.
    pub(crate) fn take(vms: &[Vm]) -> Result<Self, InheritedError> {
        let numbers = vms.iter().filter_map(|vm| vm.fd);
        let sockets = numbers.map(|number| Ok((number, Socket::take(number)?)));
        sockets.collect::<Result<_, _>>().map(Self)
    }

    /// Gives a device its socket, if it was passed one.
    pub(crate) fn add_to(
        &mut self,
        builder: VhostUserVsockBuilder,
        vm: &Vm,
    ) -> Result<VhostUserVsockBuilder, InheritedError> {
        let Some((number, socket)) = vm.fd.and_then(|number| self.0.remove_entry(&number)) else {
            return Ok(builder);
        };
        match socket {
            Socket::Connected(vmm) => Ok(builder.vmm(vmm)),
            Socket::Listening(socket, path) => {
                let listener = NamedListener::from_socket(socket, path);
                let listener = listener.map_err(|error| InheritedError::Failed(number, error))?;
                Ok(builder.listener(listener))
            }
        }
    }
}

impl Socket {
    fn take(number: RawFd) -> Result<Self, InheritedError> {
        let socket = passed_fd::take(number);
        let socket = socket.map_err(|error| InheritedError::Failed(number, error))?;
        let socket = socket.ok_or(InheritedError::NotOpen(number))?;
        let is_stream = socket_domain(&socket) == Ok(AddressFamily::UNIX)
            && socket_type(&socket) == Ok(SocketType::STREAM);
        if is_stream && socket_acceptconn(&socket) == Ok(true) {
            let address = getsockname(&socket).map(SocketAddrUnix::try_from);
            let address = address.ok().and_then(Result::ok);
            let path = address
                .as_ref()
                .and_then(SocketAddrUnix::path_bytes)
                .map(|path| PathBuf::from(OsStr::from_bytes(path)));
            let nowhere = || PathBuf::from(format!("/proc/self/fd/{number}/socket"));
            return Ok(Self::Listening(socket, path.unwrap_or_else(nowhere)));
        }
        if !is_stream || getpeername(&socket).is_err() {
            return Err(InheritedError::NoSocket(number));
        }
        let vmm = UnixStream::from(socket);
        vmm.set_nonblocking(false)
            .map_err(|error| InheritedError::Failed(number, error))?;
        Ok(Self::Connected(vmm))
    }
}
