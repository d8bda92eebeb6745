// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Listening sockets that another process, such as a service manager, has made and keeps.

use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;

use rustix::io::{FdFlags, fcntl_setfd, ioctl_fionbio};
use rustix::net::sockopt::{socket_acceptconn, socket_domain, socket_type};
use rustix::net::{AddressFamily, SocketType};

/// Takes over a Unix socket that listens for this type of connections. It does not block from then
/// on, and is closed on exec.
///
/// # Errors
///
/// `InvalidInput` if it is another kind of file, and those of the operating system.
pub(super) fn take(socket: OwnedFd, wanted: SocketType) -> io::Result<OwnedFd> {
    let is = (
        socket_domain(&socket),
        socket_type(&socket),
        socket_acceptconn(&socket),
    );
    if is != (Ok(AddressFamily::UNIX), Ok(wanted), Ok(true)) {
        let name = match wanted {
            SocketType::SEQPACKET => "SOCK_SEQPACKET",
            _ => "SOCK_STREAM",
        };
        let message = format!("expected a Unix socket of the type {name} that listens");
        return Err(io::Error::new(ErrorKind::InvalidInput, message));
    }
    fcntl_setfd(&socket, FdFlags::CLOEXEC)?;
    ioctl_fionbio(&socket, true)?;
    Ok(socket)
}
