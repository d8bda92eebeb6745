// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Sockets that neither wait for a peer nor raise a signal.

use std::io;
use std::net::{SocketAddr, TcpListener};

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType};

use super::stream::TcpVsockStream;
use crate::unix::acceptor::Acceptor;
use crate::unix::guarded_socket::GuardedSocket;

/// Listens, and returns where: for port 0 the system has chosen one.
pub(crate) fn listen(address: SocketAddr) -> io::Result<(Acceptor, SocketAddr)> {
    // As std does it: the address can be used again while connections of a process before linger.
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let listener = GuardedSocket::without_files(listener.into());
    Ok((Acceptor::new(listener)?, address))
}

/// Begins to connect. The stream says when it [is
/// done](vsock_backend_api::VsockStream::finish_connect).
pub(crate) fn dial(address: SocketAddr) -> io::Result<TcpVsockStream> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = net::socket_with(family, SocketType::STREAM, flags, None)?;
    match net::connect(&socket, &address) {
        // An interrupted connect goes on.
        Ok(()) | Err(Errno::INPROGRESS | Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(TcpVsockStream::dialled(GuardedSocket::without_files(
        socket,
    )))
}
