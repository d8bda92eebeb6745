// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Listening and connecting without blocking.

use std::io;
use std::net::{SocketAddr, TcpListener};

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType};

use super::stream::TcpVsockStream;
use crate::unix::acceptor::Acceptor;
use crate::unix::guarded_socket::GuardedSocket;

/// Listens on an address. Also returns the actual address, in case the system chose the port.
pub(crate) fn listen(address: SocketAddr) -> io::Result<(Acceptor, SocketAddr)> {
    // The standard library sets `SO_REUSEADDR`, so the address can be used again while connections
    // of an earlier process are still in `TIME_WAIT`.
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let listener = GuardedSocket::without_files(listener.into());
    Ok((Acceptor::new(listener)?, address))
}

/// Begins to connect. [`finish_connect`](vsock_backend_api::VsockStream::finish_connect) tells when
/// the stream is connected.
pub(crate) fn dial(address: SocketAddr) -> io::Result<TcpVsockStream> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = net::socket_with(family, SocketType::STREAM, flags, None)?;
    match net::connect(&socket, &address) {
        // After an interruption, the kernel continues to connect.
        Ok(()) | Err(Errno::INPROGRESS | Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(TcpVsockStream::dialled(GuardedSocket::without_files(
        socket,
    )))
}
