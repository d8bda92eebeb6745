// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Listening sockets that another process, such as a service manager, has created and shares.

use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;

use rustix::io::{FdFlags, fcntl_setfd, ioctl_fionbio};
use rustix::net::sockopt::{socket_acceptconn, socket_domain, socket_type};
use rustix::net::{AddressFamily, SocketType};

/// Takes over a listening Unix socket of the `wanted` type, and makes it non-blocking and
/// close-on-exec.
///
/// # Errors
///
/// `InvalidInput` if it is anything else, and errors of the operating system.
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
        let message = format!("expected a listening Unix socket of type {name}");
        return Err(io::Error::new(ErrorKind::InvalidInput, message));
    }
    fcntl_setfd(&socket, FdFlags::CLOEXEC)?;
    ioctl_fionbio(&socket, true)?;
    Ok(socket)
}
