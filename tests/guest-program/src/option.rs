// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Socket options of vsock (`linux/vm_sockets.h`), and `SO_RCVLOWAT`.

use std::io;
use std::time::Duration;

use nix::libc;
use nix::sys::socket::setsockopt;
use nix::sys::time::TimeVal;
use nix::{setsockopt_impl, sockopt_impl};

/// The level of vsock's options is its address family.
const LEVEL: libc::c_int = libc::AF_VSOCK;
const BUFFER_SIZE: libc::c_int = 0;
const BUFFER_MAX_SIZE: libc::c_int = 2;
const CONNECT_TIMEOUT: libc::c_int = 6;

sockopt_impl!(
    /// `SO_VM_SOCKETS_BUFFER_SIZE`
    BufferSize, SetOnly, LEVEL, BUFFER_SIZE, u64
);
sockopt_impl!(
    /// `SO_VM_SOCKETS_BUFFER_MAX_SIZE`
    BufferMaxSize, SetOnly, LEVEL, BUFFER_MAX_SIZE, u64
);
sockopt_impl!(
    /// `SO_VM_SOCKETS_CONNECT_TIMEOUT`
    ConnectTimeout, SetOnly, LEVEL, CONNECT_TIMEOUT, TimeVal
);
sockopt_impl!(
    /// `SO_RCVLOWAT`
    ReceiveLowWater, SetOnly, libc::SOL_SOCKET, libc::SO_RCVLOWAT, i32
);

/// Sets how many bytes a poll waits for.
pub(crate) fn set_lowat(socket: &socket2::Socket, bytes: u32) -> io::Result<()> {
    let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
    Ok(setsockopt(socket, ReceiveLowWater, &bytes)?)
}

/// Sets the receive buffer, which is advertised to the peer, and raises its limit if necessary.
pub(crate) fn set_buffer(socket: &socket2::Socket, bytes: u64) -> io::Result<()> {
    setsockopt(socket, BufferMaxSize, &bytes.max(256 * 1024))?;
    Ok(setsockopt(socket, BufferSize, &bytes)?)
}

/// Sets how long `connect` waits for an answer.
pub(crate) fn set_connect_timeout(socket: &socket2::Socket, limit: Duration) -> io::Result<()> {
    let seconds = limit.as_secs().try_into().unwrap_or(i64::MAX);
    let limit = TimeVal::new(seconds, limit.subsec_micros().into());
    Ok(setsockopt(socket, ConnectTimeout, &limit)?)
}
